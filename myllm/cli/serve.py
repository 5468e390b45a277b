"""`myllm serve`."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from myllm.cli.common import EXIT_INTERRUPTED, warning

if TYPE_CHECKING:
    import socket

    from myllm.settings import Settings


def serve(
    ctx: typer.Context,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on.", show_default="8000")
    ] = None,
) -> None:
    """Serve the models over HTTP until Ctrl+C."""
    gc.disable()  # to search what is imported takes a tenth of the start; see Garbage
    settings: Settings = ctx.obj.settings(host=host, port=port)

    from myllm.server import Server, listen

    # A port that is taken is told before minutes of compiling, during which nobody is let in.
    with listen(settings.host, settings.port) as probe:
        address = probe.getsockname()[0]
    from myllm.api.access import Access
    from myllm.app import App
    from myllm.cli.engine import ensure_engine_with_progress
    from myllm.logs import configure

    configure(settings.log_level, settings.log_format)
    access = Access.of(settings, address)
    engine = ensure_engine_with_progress(settings)
    listener = listen(settings.host, settings.port)
    _warn_if_open(settings, listener)
    server = Server(App(settings, engine, access), lambda: _greet(settings, listener))
    server.run(sockets=[listener])
    if server.failure is not None:
        raise server.failure
    if server.force_exit:
        raise typer.Exit(EXIT_INTERRUPTED)


def _warn_if_open(settings: Settings, listener: socket.socket) -> None:
    """Say what it means when others than this machine can ask, and no key is asked for."""
    from myllm.api.hosts import is_loopback

    address, port = listener.getsockname()[:2]
    if settings.api_keys_file is None and not is_loopback(address):
        warning(
            f"whoever reaches port {port} of this machine can use its models and delete them; "
            "'myllm key add NAME' and MYLLM_API_KEYS_FILE ask for keys"
        )


def _greet(settings: Settings, listener: socket.socket) -> None:
    """Say where the server listens, and one line that works there."""
    from myllm.cli.client import base_url

    port = listener.getsockname()[1]
    url = base_url(settings.model_copy(update={"port": port}))
    key = '-H "Authorization: Bearer $MYLLM_API_KEY" ' if settings.api_keys_file else ""
    print(f"MyLLM listens on {url}  (Ctrl+C stops it)")
    print("Try:")
    print(
        f"  curl {url}/api/chat {key}-H 'Content-Type: application/json' -d "
        '\'{"model":"demo","messages":[{"role":"user","content":"What can you do?"}],'
        '"stream":false}\''
    )
    print(f"Documentation: {url}/docs")
    sys.stdout.flush()
