"""Clients that do not read their answer. The time limit is too long for a test, so the tests call
the sweep with a later time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from functools import partial

import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from myllm.api.http.connections import Connections
from myllm.api.http.request_state import DEPARTURE
from myllm.api.http.uvicorn_protocol import ClientProtocol
from myllm.disconnects import Disconnects
from myllm.settings import load_settings
from tests.hostile.raw import head

_MUCH = 2**25
_STALLED_S = 400.0


async def _answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends much at once, or in pieces."""
    pieces = 1 if scope["path"] == "/whole" else 32
    length = [(b"content-length", b"%d" % _MUCH)]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    for left in reversed(range(pieces)):
        body = b"x" * (_MUCH // pieces)
        await send({"type": "http.response.body", "body": body, "more_body": left > 0})


@contextlib.asynccontextmanager
async def _asked(path: str) -> AsyncIterator[tuple[ClientProtocol, socket.socket]]:
    """Both ends of a connection; its client has sent a request and reads nothing."""
    config = uvicorn.Config(_answer, lifespan="off", log_config=None, ws="none")
    config.load()
    made: list[ClientProtocol] = []
    make = partial(ClientProtocol, Connections(load_settings(), 1000), Disconnects())
    state = ServerState()

    def protocol() -> ClientProtocol:
        made.append(make(config=config, server_state=state, app_state={}))
        return made[0]

    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", 0)
    with socket.socket() as client:
        client.setblocking(False)
        await loop.sock_connect(client, server.sockets[0].getsockname())
        await loop.sock_sendall(client, head("GET", path))
        async with asyncio.timeout(10):
            while not (made and made[0] in state.connections and made[0].is_sending()):
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)  # until the kernel takes no more
        yield made[0], client
    server.close()


async def _is_closed(connection: ClientProtocol) -> bool:
    await asyncio.sleep(0.1)
    return connection not in connection.connections


def test_a_client_that_takes_nothing_is_closed() -> None:
    uvloop.run(_take_nothing())


async def _take_nothing() -> None:
    for path in ("/whole", "/pieces"):
        async with _asked(path) as (connection, _):
            now = connection.loop.time()
            connection.look(now)
            connection.look(now + 100)
            assert not await _is_closed(connection)
            connection.look(now + _STALLED_S)
            assert await _is_closed(connection)


def test_a_client_that_takes_little_by_little_is_not() -> None:
    """Even after the whole answer was written and the idle time has passed."""
    uvloop.run(_take_little())


async def _take_little() -> None:
    for path in ("/whole", "/pieces"):
        async with _asked(path) as (connection, client):
            now = connection.loop.time()
            for step in range(3):
                connection.look(now + step * _STALLED_S)
                taken = 0
                while taken < 2**23:
                    taken += len(await connection.loop.sock_recv(client, 2**20))
            assert not await _is_closed(connection)


def test_a_client_that_leaves_after_a_large_body_is_noticed() -> None:
    uvloop.run(_leave_after_a_large_body())


async def _leave_after_a_large_body() -> None:
    """The last piece of the body is so large that reading pauses."""
    left = asyncio.Event()

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["more_body"]:
            pass
        scope["state"][DEPARTURE].calls(left.set)
        await asyncio.sleep(60)

    config = uvicorn.Config(wait, lifespan="off", log_config=None, ws="none")
    config.load()
    connections = Connections(load_settings(), 1000), Disconnects()
    protocol = ClientProtocol(*connections, config=config, server_state=ServerState(), app_state={})
    ours, theirs = socket.socketpair()
    with theirs:
        await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, ours)
        protocol.data_received(
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n"
        )
        await asyncio.sleep(0.05)
        protocol.data_received(b" " * 200_000)
        await asyncio.sleep(0.05)
    async with asyncio.timeout(10):
        await left.wait()
