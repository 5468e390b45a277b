"""Running the application: sockets, signals, and the order in which things end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import ipaddress
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import structlog
import uvicorn
from starlette.types import ASGIApp

from myllm.api.http.connections import Connections
from myllm.api.http.hosts import trusted
from myllm.api.http.uvicorn_protocol import ClientProtocol
from myllm.descriptors import raise_limit
from myllm.disconnects import Disconnects
from myllm.errors import MyLLMError, ServeFailed
from myllm.garbage import Garbage
from myllm.loops import in_background
from myllm.settings import Settings
from myllm.tls import Tls

_log = structlog.get_logger(__name__)
# Time for connections to close after the engines have stopped; their answers have ended by then.
_CONNECTIONS_S = 1
_POLL_S = 0.05
# uvicorn ticks ten times a second.
_TICKS_BETWEEN_SEARCHES = 50
# For so long a thread that reads a large body keeps Python's lock while the event loop waits for
# it, which happens several times per request. Python's default is 5 ms.
SWITCH_S = 0.001
# TCP keep-alive detects within two minutes that a client's machine or network has gone, even while
# the server sends nothing. Accepted connections inherit these options.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; on `::` it accepts IPv4 connections, too.

    If that fails, raises ServeFailed, which says what to do.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        everywhere = family == socket.AF_INET6 and ipaddress.ip_address(address[0]).is_unspecified
        listener = socket.create_server(
            (host, port),
            family=family,
            backlog=2048,
            dualstack_ipv6=everywhere and socket.has_dualstack_ipv6(),
        )
    except socket.gaierror as failure:
        raise ServeFailed(
            f"'{host}' is not an address of this machine: {failure.strerror}"
        ) from None
    except OverflowError:
        raise ServeFailed(f"{port} is not a port; choose 0 to 65535") from None
    except OSError as failure:
        if failure.errno == errno.EADDRINUSE:
            raise ServeFailed(
                f"port {port} on {host} is taken; stop what uses it (see 'lsof -i :{port}') "
                f"or choose another with --port"
            ) from None
        raise ServeFailed(f"cannot listen on port {port} of {host}: {failure.strerror}") from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        if hasattr(socket, name):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return listener


class Served(Protocol):
    """What `Server` runs: an ASGI application that can be stopped in an orderly way."""

    settings: Settings
    asgi: ASGIApp
    tls: Tls | None

    def running(self) -> AbstractAsyncContextManager[None]:
        """Ready for requests while the context lasts; raises MyLLMError when it cannot start."""

    async def drain_and_stop(self) -> None:
        """Let running answers end, then stop everything."""

    def body_bytes(self) -> int:
        """Size of the bodies of all requests under way."""

    def reload(self) -> None:
        """Apply changed configurations."""

    def abandon(self) -> None:
        """Stop at once, without waiting for anything."""


class Server(uvicorn.Server):
    """uvicorn, but it drains before it stops listening.

    The first SIGINT or SIGTERM lets running answers end within their grace, then stops the
    engines, then closes the connections. A second one ends the process at once; the engines notice
    that and end by themselves. `on_interrupt` is called on the first SIGINT.
    """

    def __init__(
        self,
        app: Served,
        on_listening: Callable[[], None] | None = None,
        on_interrupt: Callable[[], None] | None = None,
    ) -> None:
        self._connections = Connections(app.settings, raise_limit())
        self._disconnects = Disconnects()
        tls = app.tls
        protocol: Any = functools.partial(ClientProtocol, self._connections, self._disconnects)
        config = uvicorn.Config(
            app.asgi,
            loop="uvloop",
            http=protocol,
            interface="asgi3",
            ws="none",
            lifespan="off",  # see `startup`
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_CONNECTIONS_S,
            server_header=False,
            # Given explicitly: uvicorn's default trusts every client on this machine.
            proxy_headers=bool(app.settings.trusted_proxies),
            forwarded_allow_ips=trusted(app.settings.trusted_proxies),
            ssl_context_factory=(lambda *_: tls.context) if tls else None,
        )
        super().__init__(config)
        self._app = app
        self._running = contextlib.AsyncExitStack()
        self.failure: MyLLMError | None = None
        """Why it did not start."""
        self._on_listening = on_listening
        self._on_interrupt = on_interrupt

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await self._running.enter_async_context(self._app.running())
        except MyLLMError as failure:
            self.failure, self.should_exit = failure, True
            return
        try:
            self._garbage = Garbage()
            sys.setswitchinterval(SWITCH_S)
            await super().startup(sockets)
            if self._on_listening is not None:
                self._on_listening()
        except BaseException:
            await self._running.aclose()
            raise

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_BETWEEN_SEARCHES == 0:
            self._garbage.look(len(self.server_state.connections), self._app.body_bytes())
        self._connections.sweep(asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        began = time.monotonic()
        ending = in_background("stopping", self._app.drain_and_stop())
        while not ending.done() and not self.force_exit:
            await asyncio.wait({ending}, timeout=_POLL_S)
        ending.cancel()
        _log.info("closing connections", connections=len(self.server_state.connections))
        await super().shutdown(sockets)
        if self.force_exit:
            self._app.abandon()
        else:
            await self._running.aclose()
        _log.info("server stopped", seconds=round(time.monotonic() - began, 3))

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM stop the server. SIGHUP reloads the configurations, unless the process
        has a terminal: then it means that the terminal was closed, and stops the server, too. Under
        `nohup` it stays ignored. Unlike uvicorn's own, this does not raise the signals again, so
        that the caller chooses the exit code."""
        loop = asyncio.get_running_loop()
        signals = {signal.SIGINT: self._interrupt, signal.SIGTERM: lambda: self.leave("SIGTERM")}
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signals[signal.SIGHUP] = self._hang_up if _has_terminal() else self._reload
        try:
            for number, handler in signals.items():
                loop.add_signal_handler(number, handler)
        except (RuntimeError, ValueError):  # not the main thread, where alone handlers can be set
            yield
            return
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    def leave(self, reason: str) -> None:
        """Stop in an orderly way; when called again, stop at once. The log gives the `reason`."""
        if self.should_exit:
            self.force_exit = True
            _log.warning("server stops at once", reason=reason)
        else:
            self.should_exit = True
            _log.info("server stopping", reason=reason)

    def _interrupt(self) -> None:
        is_first = not self.should_exit
        self.leave("SIGINT")
        if is_first and self._on_interrupt is not None:
            self._on_interrupt()

    def _hang_up(self) -> None:
        """The kernel and the shell may each send a SIGHUP; two do not mean "stop at once"."""
        if not self.should_exit:
            self.leave("SIGHUP")

    def _reload(self) -> None:
        _log.info("reloading", reason="SIGHUP")
        self._app.reload()


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal, which need not be its stdin."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
