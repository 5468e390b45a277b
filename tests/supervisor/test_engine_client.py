"""How an engine's answer is read: at once where it matters, in handfuls where it is fast."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

import httpx
import pytest

from myllm.launcher.local.sockets import connect_unix
from myllm.supervisor.engine_client import EngineClient

Sends = Callable[[asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@asynccontextmanager
async def engine(home: Path, sends: Sends) -> AsyncGenerator[EngineClient, None]:
    """What answers every request with what `sends` writes, and then closes, as an engine does."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await sends(writer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(answer, home / "e.sock")
    async with server:
        yield EngineClient(partial(connect_unix, str(home / "e.sock")))


async def pieces(client: EngineClient) -> list[tuple[float, bytes]]:
    """The pieces in which an answer is handed over, and when."""
    read = []
    with closing(await client.stream("/x", b"{}", 10)) as stream:
        while part := await stream.read():
            read.append((time.monotonic(), part))
    return read


async def test_a_fast_stream_comes_in_handfuls_and_whole(home: Path) -> None:
    async def sends(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        for number in range(100):
            writer.write(chunk(b"token %d;" % number))
            await writer.drain()
            await asyncio.sleep(0.002)
        writer.write(END)

    async with engine(home, sends) as client:
        read = await pieces(client)
    assert b"".join(part for _, part in read) == b"".join(b"token %d;" % n for n in range(100))
    assert len(read) < 60
    assert read[0][1] == b"token 0;"


async def test_a_slow_stream_waits_for_nothing(home: Path) -> None:
    sent: list[float] = []

    async def sends(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        for _ in range(12):
            sent.append(time.monotonic())
            writer.write(chunk(b"token;"))
            await asyncio.sleep(0.05)
        writer.write(END)

    async with engine(home, sends) as client:
        read = await pieces(client)
    assert [part for _, part in read] == [b"token;"] * 12
    late = sorted(came - went for went, (came, _) in zip(sent, read, strict=True))
    assert late[6] < 0.02


async def test_a_large_answer_is_read_as_fast_as_it_comes(home: Path) -> None:
    body = b"x" * 2**20

    async def sends(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        for _ in range(32):
            writer.write(chunk(body))
        writer.write(END)

    async with engine(home, sends) as client:
        began = time.monotonic()
        answer = await client.post("/x", b"{}", 30)
    assert answer.body == 32 * body
    assert time.monotonic() - began < 10  # some 500 readings, of which none may wait


async def test_an_engine_that_closes_between_two_readings_is_noticed(home: Path) -> None:
    async def sends(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        for _ in range(20):
            writer.write(chunk(b"token;"))
            await writer.drain()
            await asyncio.sleep(0.001)

    async with engine(home, sends) as client:
        with pytest.raises(httpx.ReadError, match="it closed the connection"):
            await pieces(client)


async def test_an_engine_can_be_reached_over_tcp() -> None:
    """As a launcher for another machine would connect to it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in (HEAD, *(chunk(b"token;") for _ in range(30)), END):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.001)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()

        async def connect() -> socket.socket:
            opened = socket.socket()
            opened.setblocking(False)
            await asyncio.get_running_loop().sock_connect(opened, address)
            return opened

        client = EngineClient(connect)
        assert b"".join(part for _, part in await pieces(client)) == 30 * b"token;"
        assert (await client.get("/x", 10)).status == 200
        client.close()


async def test_an_engine_that_is_slow_to_accept_is_waited_for(home: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(home / "e.sock"))
    listener.listen(1)
    clients = [EngineClient(partial(connect_unix, str(home / "e.sock"))) for _ in range(8)]
    asked = [asyncio.create_task(client.post("/x", b"{}", 10)) for client in clients]
    await asyncio.sleep(0.1)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(HEAD + END)
        writer.close()

    listener.setblocking(False)
    async with await asyncio.start_unix_server(answer, sock=listener):
        assert [each.status for each in await asyncio.gather(*asked)] == [200] * 8


async def test_one_that_was_held_up_goes_on_in_handfuls(home: Path) -> None:
    """More than may wait unread comes in quick pieces, whose reader is slow at first."""
    body = b"x" * 4000

    async def sends(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        for _ in range(600):
            writer.write(chunk(body))
            await writer.drain()
            await asyncio.sleep(0.0005)
        writer.write(END)

    async with engine(home, sends) as client:
        with closing(await client.stream("/x", b"{}", 10)) as stream:
            length = len(await stream.read())
            await asyncio.sleep(0.5)
            while part := await stream.read():
                length += len(part)
    assert length == 600 * len(body)


class Keeping:
    """An engine that keeps its connections open; closes one after `answers`, without a word."""

    def __init__(self, answers: int = 1000, body: bytes = b"{}") -> None:
        self.connections = 0
        self._answers = answers
        self._body = body

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        for _ in range(self._answers):
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            await reader.readexactly(2)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(self._body))
            writer.write(self._body)
            if b"Connection: close" in head:
                break
        writer.close()


async def test_the_calls_of_a_turn_share_a_connection(home: Path) -> None:
    fake = Keeping()
    async with await asyncio.start_unix_server(fake.answer, home / "e.sock"):
        client = EngineClient(partial(connect_unix, str(home / "e.sock")))
        for _ in range(5):
            assert (await client.post("/x", b"{}", 10)).body == b"{}"
        assert fake.connections == 1
        await asyncio.gather(*(client.post("/x", b"{}", 10) for _ in range(8)))
        assert fake.connections == 8
        client.close()


async def test_one_that_the_engine_has_closed_is_not_missed(home: Path) -> None:
    """Whether that is known before the next call or only found out by it."""
    fake = Keeping(answers=1)
    async with await asyncio.start_unix_server(fake.answer, home / "e.sock"):
        client = EngineClient(partial(connect_unix, str(home / "e.sock")))
        for number in range(20):
            assert (await client.post("/x", b"{}", 10)).status == 200
            if number % 2:
                await asyncio.sleep(0.01)
        assert fake.connections == 20
        client.close()


async def test_what_was_not_read_to_its_end_is_not_asked_again(home: Path) -> None:
    fake = Keeping(body=b"x" * 2**22)
    async with await asyncio.start_unix_server(fake.answer, home / "e.sock"):
        client = EngineClient(partial(connect_unix, str(home / "e.sock")))
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/x", b"{}", 0.0005)
        assert len((await client.post("/x", b"{}", 10)).body) == 2**22
        client.close()


@pytest.mark.parametrize("later", [False, True])
async def test_what_nobody_has_asked_for_is_no_answer(home: Path, later: bool) -> None:
    """An engine that sends two answers, the second at once or a little later."""
    made = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(made + b"one")
        if later:
            await writer.drain()
            await asyncio.sleep(0.02)
        writer.write(made + b"two")
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(answer, home / "e.sock"):
        client = EngineClient(partial(connect_unix, str(home / "e.sock")))
        for _ in range(3):
            assert (await client.post("/x", b"{}", 10)).body == b"one"
            await asyncio.sleep(0.05)
        client.close()


async def test_a_stopped_engine_is_not_asked_again(home: Path) -> None:
    """Whoever waits is told, and does not come back by a new connection."""
    async with engine(home, lambda _: asyncio.sleep(10)) as client:
        asked = asyncio.create_task(client.post("/x", b"{}", 10))
        await asyncio.sleep(0.05)
        client.close()
        with pytest.raises(httpx.ReadError, match="being stopped"):
            await asked
        with pytest.raises(httpx.ConnectError, match="being stopped"):
            await client.post("/x", b"{}", 10)
