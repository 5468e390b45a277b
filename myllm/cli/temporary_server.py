"""A server for one command: on a private Unix socket, in a thread, gone with the command."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from myllm.errors import ServeFailed

if TYPE_CHECKING:
    import httpx

    from myllm.server import Served
    from myllm.settings import Settings

_START_S = 30.0
_STOP_S = 15.0


@contextmanager
def server_for_command(settings: Settings) -> Iterator[httpx.Client]:
    """A client of the running server if there is one, else of one started here.

    Waits for a server that cannot answer yet. When the context is left, a server that was started
    here has stopped and its engines are reaped.
    """
    from myllm.cli.client import running_server

    running = running_server(settings, to_generate=True)
    if running is not None:
        with closing(running):
            yield running
        return
    with own_server(settings) as own:
        yield own


@contextmanager
def own_server(settings: Settings) -> Iterator[httpx.Client]:
    """A client of a server that is started here and ends with the context."""
    from myllm.api.http.access import Access
    from myllm.app import App
    from myllm.cli.engine import ensure_engine_with_progress

    engine = ensure_engine_with_progress(settings)
    # Only this user can enter the socket's folder, so the server requires no key.
    with _served(App(settings, engine, Access())) as client:
        yield client


@contextmanager
def store_for_command(settings: Settings) -> Iterator[httpx.Client]:
    """A client of the running server if there is one, else of a server, started here, of only the
    routes about the store: they need no engine."""
    from myllm.cli.client import running_server

    running = running_server(settings)
    if running is not None:
        with closing(running):
            yield running
        return
    from myllm.store_app import StoreApp

    with _served(StoreApp(settings)) as own:
        yield own


@contextmanager
def _served(app: Served) -> Iterator[httpx.Client]:
    """Serve `app` to this process only, until the context is left."""
    import httpx

    from myllm.cli.http_client import PatientClient
    from myllm.logs import configure
    from myllm.server import Server

    # The answer is the output of the command, so only warnings and errors are logged.
    configure("debug" if app.settings.log_level == "debug" else "error", "text")
    started = threading.Event()
    server = Server(app, started.set)
    with tempfile.TemporaryDirectory(prefix="myllm-") as folder:
        path = Path(folder) / "api.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(path))
            listener.listen()

            def serve() -> None:
                try:
                    server.run([listener])
                finally:
                    started.set()

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            try:
                if not started.wait(_START_S):
                    raise ServeFailed("the server for this command did not start")
                if server.failure is not None:
                    raise server.failure
                transport = httpx.HTTPTransport(uds=str(path))
                with PatientClient("http://myllm", transport) as client:
                    yield client
            finally:
                server.leave("the command has ended")
                thread.join(_STOP_S)
