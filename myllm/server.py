"""Running the application: sockets, signals, and the order in which things end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import uvicorn
from starlette.types import ASGIApp

from myllm.api.client_protocol import ClientProtocol
from myllm.errors import MyLLMError, ServeFailed
from myllm.garbage import Garbage
from myllm.settings import Settings

# What connections get to finish in after the engines are gone; their answers have ended then.
_CONNECTIONS_S = 1
_POLL_S = 0.05
# uvicorn ticks ten times a second.
_TICKS_BETWEEN_SEARCHES = 50


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises ServeFailed with what to do when it cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except socket.gaierror as failure:
        raise ServeFailed(f"'{host}' is no address of this machine: {failure.strerror}") from None
    except OverflowError:
        raise ServeFailed(f"{port} is no port; choose 0 to 65535") from None
    except OSError as failure:
        if failure.errno == errno.EADDRINUSE:
            raise ServeFailed(
                f"port {port} on {host} is taken; stop what uses it (see 'lsof -i :{port}') "
                f"or choose another with --port"
            ) from None
        raise ServeFailed(f"cannot listen on {host}:{port}: {failure.strerror}") from None


class Served(Protocol):
    """What can be served: an ASGI application that ends in an orderly way."""

    settings: Settings
    asgi: ASGIApp

    def running(self) -> AbstractAsyncContextManager[None]:
        """Ready for requests; raises MyLLMError when it cannot be."""

    async def drain_and_stop(self) -> None:
        """Let what runs come to its end."""

    def reload(self) -> None:
        """Take in changed configurations."""

    def abandon(self) -> None:
        """Leave at once."""


class Server(uvicorn.Server):
    """uvicorn, but it drains before it stops listening.

    The first SIGINT or SIGTERM lets running answers end within their grace, then stops the
    engines, then closes the connections. A second one leaves at once; the engines notice that
    we are gone and end by themselves.
    """

    def __init__(self, app: Served, on_listening: Callable[[], None] | None = None) -> None:
        config = uvicorn.Config(
            app.asgi,
            loop="uvloop",
            http=ClientProtocol,
            ws="none",
            lifespan="off",  # see `startup`
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_CONNECTIONS_S,
            timeout_keep_alive=75,
            server_header=False,
            # Named, for by itself uvicorn would believe whoever connects from this machine.
            proxy_headers=bool(app.settings.trusted_proxies),
            forwarded_allow_ips=[str(each) for each in app.settings.trusted_proxies],
        )
        super().__init__(config)
        self._app = app
        self._running = contextlib.AsyncExitStack()
        self.failure: MyLLMError | None = None
        """Why it did not start."""
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await self._running.enter_async_context(self._app.running())
        except MyLLMError as failure:
            self.failure, self.should_exit = failure, True
            return
        self._garbage = Garbage()
        await super().startup(sockets)
        if self._on_listening is not None:
            self._on_listening()

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_BETWEEN_SEARCHES == 0:
            self._garbage.look(under_way=len(self.server_state.tasks))
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        ending = asyncio.create_task(self._app.drain_and_stop())
        while not ending.done() and not self.force_exit:
            await asyncio.wait({ending}, timeout=_POLL_S)
        ending.cancel()
        await super().shutdown(sockets)
        if self.force_exit:
            self._app.abandon()
        else:
            await self._running.aclose()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM are a wish to leave, SIGHUP one to take in changed configurations;
        the exit code stays ours to choose."""
        loop = asyncio.get_running_loop()
        signals = {
            signal.SIGINT: self.leave,
            signal.SIGTERM: self.leave,
            signal.SIGHUP: self._app.reload,
        }
        try:
            for number, handler in signals.items():
                loop.add_signal_handler(number, handler)
        except (RuntimeError, ValueError):  # not the main thread: somebody else handles them
            yield
            return
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    def leave(self) -> None:
        """Stop in an orderly way; when called again, at once."""
        self.force_exit = self.should_exit
        self.should_exit = True
