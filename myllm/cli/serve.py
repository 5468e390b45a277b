"""`myllm serve`."""

from __future__ import annotations

import gc
import os
import shlex
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from myllm.cli.common import EXIT_INTERRUPTED, warning

if TYPE_CHECKING:
    import socket

    from myllm.api.http.access import Access
    from myllm.settings import Settings

_STDOUT = 1


def serve(
    ctx: typer.Context,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on.", show_default="8000")
    ] = None,
) -> None:
    """Serve the models over HTTP until Ctrl+C or the end of its terminal."""
    gc.disable()  # scanning the imported objects takes a tenth of the start; see Garbage
    settings: Settings = ctx.obj.settings(host=host, port=port)
    _refuse_keys_file()

    from myllm.server import Server, listen

    # Listen first: a taken port must fail before minutes of compiling. No request is served yet.
    with listen(settings.host, settings.port) as probe:
        address = probe.getsockname()[0]
    from myllm.api.http.access import Access
    from myllm.app import App
    from myllm.cli.engine import ensure_engine_with_progress
    from myllm.logs import configure, take_over_stderr
    from myllm.running_servers import noted
    from myllm.tls import Tls

    configure(settings.log_level, settings.log_format)
    take_over_stderr()
    access, tls = Access.of(settings, address), Tls.of(settings)
    engine = ensure_engine_with_progress(settings)
    listener = listen(settings.host, settings.port)
    server = Server(
        App(settings, engine, access, tls),
        on_listening=lambda: _greet(settings, listener, access),
        on_interrupt=lambda: _print(
            f"Running answers get {settings.drain_grace:g} s to end. Ctrl+C again quits at once.\n"
        ),
    )
    certificate = tls.certificate if tls else None
    with noted(settings.state_dir, address, listener.getsockname()[1], certificate):
        server.run(sockets=[listener])
    if server.failure is not None:
        raise server.failure
    if server.force_exit:
        raise typer.Exit(EXIT_INTERRUPTED)


def _refuse_keys_file() -> None:
    """Raise InvalidSettings if a file of keys is named, as in earlier versions: the server would be
    open although its operator believes that it asks for them."""
    from myllm.errors import InvalidSettings
    from myllm.settings_files import config_file, read_toml

    if os.environ.get("MYLLM_API_KEYS_FILE") or "api_keys_file" in read_toml(config_file()):
        raise InvalidSettings(
            "MYLLM_API_KEYS_FILE is no longer a setting, since keys are in the store: add those of "
            "the file with 'myllm key import FILE', and unset it"
        )


def _greet(settings: Settings, listener: socket.socket, access: Access) -> None:
    """Print where the server listens, and a command that works there."""
    import structlog

    from myllm.api.http.hosts import is_loopback
    from myllm.cli.client import base_url, url

    address, port = listener.getsockname()[:2]
    here = base_url(settings.model_copy(update={"host": address, "port": port}))
    listens = url(address, port, here.partition(":")[0])
    structlog.get_logger(__name__).info("server listening", url=listens)
    where = (
        "" if here == listens else f" for every {_kind(address)} of this machine, such as {here}"
    )
    is_open = access.keys is None or access.keys.is_open
    if is_open and not is_loopback(address):
        warning(
            f"every client that reaches port {port} of this machine can use its models and delete "
            "them; to require keys, use 'myllm key create NAME --role admin'"
        )
    # A certificate is seldom for the address of this machine.
    trust = "--insecure " if settings.tls_cert else ""
    key = "" if is_open else '-H "Authorization: Bearer $MYLLM_API_KEY" '
    _print(
        f"MyLLM listens on {listens}{where}  (Ctrl+C stops it)\n"
        "Try:\n"
        f"  curl {trust}{shlex.quote(f'{here}/api/chat')} {key}"
        "-H 'Content-Type: application/json' -d "
        '\'{"model":"demo","messages":[{"role":"user","content":"What can you do?"}],'
        '"stream":false}\'\n'
        f"Documentation: {here}/docs\n"
    )


def _kind(address: str) -> str:
    """The kind of addresses that an unspecified address stands for."""
    return "address" if ":" in address else "IPv4 address"


def _print(text: str) -> None:
    """Print to stdout in a thread: the write blocks while the reader does not read the pipe, and
    fails once the reader has gone, and neither must stop the server."""

    def write() -> None:
        try:
            os.write(_STDOUT, text.encode())
        except OSError as failure:
            import structlog

            log = structlog.get_logger(__name__)
            log.warning("stdout cannot be written", cause=failure.strerror, text=text)

    threading.Thread(target=write, name="stdout", daemon=True).start()
