"""Clients that do not read their answer, and clients that leave."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, AsyncIterator, MutableMapping
from functools import partial
from typing import Any

import pytest
import uvicorn
from starlette.responses import Response
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from myllm.api.http import streaming
from myllm.api.http.connections import Connections
from myllm.api.http.request_state import DEPARTURE, Departure
from myllm.api.http.streaming import DeferredResponse, Stream
from myllm.api.http.uvicorn_protocol import ClientProtocol
from myllm.disconnects import Disconnects
from myllm.settings import load_settings
from tests.hostile.raw import head


async def test_a_client_that_does_not_read_for_too_long_counts_as_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streaming, "CLIENT_STALLS_S", 0.1)
    cleaned_up = []

    async def frames() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"data: {}\n\n"
        finally:
            cleaned_up.append(True)

    sent = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)
        if len(sent) > 5:
            await asyncio.Event().wait()  # as a socket whose other end reads no more

    async def receive() -> MutableMapping[str, Any]:
        raise AssertionError

    stream = Stream(frames, lambda error: b"")
    await asyncio.wait_for(
        stream({"type": "http", "state": {DEPARTURE: Departure()}}, receive, send), 10
    )
    assert cleaned_up == [True]
    assert len(sent) == 6


@contextlib.asynccontextmanager
async def connected(app: ASGIApp) -> AsyncIterator[socket.socket]:
    """A client's connection to a server of `app`."""
    config = uvicorn.Config(app, lifespan="off", log_config=None, ws="none")
    config.load()
    of_server = Connections(load_settings(), 1000), Disconnects()
    protocol = partial(
        ClientProtocol, *of_server, config=config, server_state=ServerState(), app_state={}
    )
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", 0)
    with socket.socket() as client:
        client.setblocking(False)
        await loop.sock_connect(client, server.sockets[0].getsockname())
        yield client
    server.close()


class Work:
    """Work for an answer, whose cleanup takes until it is told to end."""

    def __init__(self) -> None:
        self.is_cleaning, self.may_end, self.has_ended = (asyncio.Event() for _ in range(3))
        self.outcome: list[str] = []

    async def clean_up(self) -> None:
        self.is_cleaning.set()
        try:
            await self.may_end.wait()
            self.outcome.append("cleaned up")
        except asyncio.CancelledError:
            self.outcome.append("cleanup interrupted")
            raise

    def answered_by(self, answer: Response) -> ASGIApp:
        """An application that notes how the answer ends."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            try:
                await answer(scope, receive, send)
                self.outcome.append("returned")
            except asyncio.CancelledError:
                self.outcome.append("cancelled")
            finally:
                self.has_ended.set()

        return app

    async def is_left_by(self, client: socket.socket) -> None:
        """The client leaves during the cleanup, which then ends."""
        async with asyncio.timeout(20):
            await self.is_cleaning.wait()
            client.close()
            await asyncio.sleep(0.2)  # until the server knows
            self.may_end.set()
            await self.has_ended.wait()
        assert self.outcome == ["cleaned up", "returned"]


async def test_a_stalled_client_that_leaves_does_not_interrupt_the_cleanup(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streaming, "CLIENT_STALLS_S", 0.2)
    work = Work()

    async def frames() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield bytes(2**20)
        finally:
            await work.clean_up()

    async with connected(work.answered_by(Stream(frames, lambda error: b""))) as client:
        await asyncio.get_running_loop().sock_sendall(client, head("GET", "/"))
        await work.is_left_by(client)


async def test_a_refused_client_that_leaves_does_not_interrupt_the_cleanup() -> None:
    """The rest of its body is invalid while its answer is made."""
    work, has_begun = Work(), asyncio.Event()

    async def make() -> Response:
        has_begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await work.clean_up()
        raise AssertionError

    async with connected(work.answered_by(DeferredResponse(make))) as client:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, head("POST", "/", "Transfer-Encoding: chunked") + b"1\r\na")
        await asyncio.wait_for(has_begun.wait(), 20)
        await loop.sock_sendall(client, b"\r\nno chunk\r\n")
        await work.is_left_by(client)
