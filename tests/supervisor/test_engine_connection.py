"""The states of a connection to an engine, and which follow each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from myllm.launcher.base import Connect
from myllm.launcher.local.sockets import connect_unix
from myllm.supervisor.engine_connection import Connection
from myllm.supervisor.shared_reads import SharedReadTimer

REQUEST = b"GET /x HTTP/1.1\r\n\r\n"
STAYS_OPEN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CLOSES = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
UNFINISHED = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"


@asynccontextmanager
async def engine(home: Path, answer: bytes, unasked: bytes = b"") -> AsyncGenerator[Connect, None]:
    """Answers each request with `answer`, and sends `unasked` a moment later."""
    writers = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while await reader.readline():
            await reader.readline()
            writer.write(answer)
            if unasked:
                await asyncio.sleep(0.05)
                writer.write(unasked)

    async with await asyncio.start_unix_server(serve, home / "e.sock"):
        yield partial(connect_unix, str(home / "e.sock"))
        for writer in writers:
            writer.close()


async def closed(connection: Connection) -> None:
    async with asyncio.timeout(5):
        while connection.state != "closed":
            await asyncio.sleep(0.01)


async def test_a_connection_serves_one_request_after_the_other(home: Path) -> None:
    async with engine(home, STAYS_OPEN) as connect:
        connection = Connection(SharedReadTimer())
        assert connection.state == "unconnected"
        for _ in range(3):
            await connection.ask(connect, REQUEST, 5)
            assert connection.state == "answered"
            assert not connection.can_rest()  # nothing of the answer was read yet
            assert await connection.read() == b"ok"
            assert connection.can_rest()
            connection.rest()
            assert (connection.state, connection.rests()) == ("resting", True)
        await closed(connection)  # no request followed
        assert not connection.rests()


async def test_a_connection_that_the_engine_will_close_does_not_rest(home: Path) -> None:
    async with engine(home, CLOSES) as connect:
        connection = Connection(SharedReadTimer())
        await connection.ask(connect, REQUEST, 5)
        await connection.read()
        assert (connection.state, connection.can_rest()) == ("answered", False)
        connection.abort()
        assert connection.state == "closed"


async def test_an_answer_that_is_not_complete_leaves_it_asked(home: Path) -> None:
    async with engine(home, UNFINISHED) as connect:
        connection = Connection(SharedReadTimer())
        await connection.ask(connect, REQUEST, 5)
        await connection.read()
        assert (connection.state, connection.can_rest()) == ("asked", False)
        assert connection.is_awaited()
    with pytest.raises(httpx.ReadError):
        await connection.read()
    assert connection.state == "closed"


async def test_what_comes_without_a_request_closes_a_resting_connection(home: Path) -> None:
    async with engine(home, STAYS_OPEN, unasked=STAYS_OPEN) as connect:
        connection = Connection(SharedReadTimer())
        await connection.ask(connect, REQUEST, 5)
        await connection.read()
        connection.rest()
        began = asyncio.get_running_loop().time()
        await closed(connection)
        assert asyncio.get_running_loop().time() - began < 0.3


async def test_silence_and_a_missing_engine_close_it(home: Path) -> None:
    async with engine(home, b"") as connect:
        connection = Connection(SharedReadTimer())
        with pytest.raises(httpx.ReadTimeout):
            await connection.ask(connect, REQUEST, 0.1)
        assert connection.state == "closed"
    connection = Connection(SharedReadTimer())
    with pytest.raises(httpx.ConnectError):
        await connection.ask(partial(connect_unix, str(home / "none.sock")), REQUEST, 1)
    assert connection.state == "unconnected"


async def test_a_closed_connection_stays_closed(home: Path) -> None:
    connection = Connection(SharedReadTimer())
    connection.abort()
    connection.abort()
    assert (connection.state, connection.rests(), connection.can_rest()) == ("closed", False, False)
