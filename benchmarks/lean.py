"""A load generator that sees every chunk: first tokens, whole streams, on raw sockets.

    python -m benchmarks.lean < plan.json > result.json

A separate program, so that its CPU time is not added to that of its caller. It imports little, and
for each chunk only appends it and checks its end.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import cast

import orjson
import uvloop

# An answer that takes longer counts as failed.
_ANSWER_S = 120.0
_LAST_CHUNK = b"\r\n0\r\n\r\n"


class Target:
    """An address, and the marks of a good answer: how many `word`s, and `ending` near its end."""

    def __init__(self, plan: dict[str, str | int]) -> None:
        self.host, self.port = str(plan["host"]), int(str(plan["port"]))
        self.word, self.ending = str(plan["word"]).encode(), str(plan["ending"]).encode()
        self.expected = int(str(plan["expected"]))
        self.request = _request(str(plan["path"]), str(plan["body"]).encode(), str(plan["key"]))


class Result:
    """The results of the requests to one target."""

    def __init__(self) -> None:
        self.wrong = self.closed = 0
        self.first_ms: list[float] = []
        self.ended = 0.0
        self.bad = ""

    def failed(self, why: str) -> None:
        self.wrong += 1
        self.bad = self.bad or why


class Connection(asyncio.Protocol):
    """A kept connection for one request at a time."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._transport: asyncio.Transport | None = None
        self._got = bytearray()
        self._first = 0.0
        self._length: int | None = None
        self._answered: asyncio.Future[None] | None = None

    async def ask(self, result: Result) -> None:
        """Send the request, wait for the whole answer, and add it to `result`.

        If the server has closed a kept connection, send the request again on a new one.
        """
        kept = self._transport is not None
        began = time.perf_counter()
        try:
            async with asyncio.timeout(_ANSWER_S):
                began = await self._exchange()
        except OSError as failure:  # also TimeoutError
            self.close()
            if kept and not self._got and not isinstance(failure, TimeoutError):
                result.closed += 1
                await self.ask(result)
            else:
                result.failed(f"{failure!r} after {bytes(self._got[-200:])!r}")
        else:
            result.ended = time.perf_counter()
            self._judge(began, result)

    async def _exchange(self) -> float:
        """Send the request and wait for its answer; return when it was sent. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._got.clear()
        self._first, self._length = 0.0, None
        if self._transport is None:
            await loop.create_connection(lambda: self, self._target.host, self._target.port)
        self._answered = loop.create_future()
        began = time.perf_counter()
        if self._transport is None:
            raise ConnectionResetError("closed at once")
        self._transport.write(self._target.request)
        await self._answered
        return began

    def _judge(self, began: float, result: Result) -> None:
        got, target = bytes(self._got), self._target
        whole = got.count(target.word) == target.expected and target.ending in got[-200:]
        if whole and got.startswith(b"HTTP/1.1 200 "):
            result.first_ms.append(1000 * (self._first - began))
        else:
            result.failed(f"{got[:15]!r} ... {got[-200:]!r}")
        if b"\r\nconnection: close\r\n" in got[:1000].lower():
            self.close()

    def close(self) -> None:
        """Close; the next request uses another connection."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transport is no subclass

    def data_received(self, data: bytes) -> None:
        got = self._got
        got += data
        if not self._first and self._target.word in got:
            self._first = time.perf_counter()
        if self._length is None:
            self._length = _length(got)
        if self._length is not None and (
            len(got) >= self._length if self._length else got.endswith(_LAST_CHUNK)
        ):
            self._over(None)

    def connection_lost(self, exc: Exception | None) -> None:
        # A connection closed by `close` has been replaced, perhaps by one that is in use.
        if self._transport is not None and self._transport.is_closing():
            self._transport = None
            self._over(exc or ConnectionResetError("closed before the end of the answer"))

    def _over(self, failure: Exception | None) -> None:
        answered = self._answered
        if answered is None or answered.done():
            return
        if failure is None:
            answered.set_result(None)
        else:
            answered.set_exception(failure)


def _length(got: bytearray) -> int | None:
    """Bytes of the whole answer; 0 if it is chunked, None if its head is incomplete."""
    head, end, _ = bytes(got[:4000]).partition(b"\r\n\r\n")
    if not end:
        return None
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(head) + len(end) + int(line.partition(b":")[2])
    return 0


def _request(path: str, body: bytes, key: str) -> bytes:
    access = f"Authorization: Bearer {key}\r\n" if key else ""
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{access}"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def crowd(target: Target, clients: int, seconds: float) -> Result:
    """Let `clients` send requests in a loop; at the end, wait for the running ones."""
    result = Result()
    until = time.perf_counter() + seconds

    async def one() -> None:
        connection = Connection(target)
        while time.perf_counter() < until:
            await connection.ask(result)
        connection.close()

    await asyncio.gather(*(one() for _ in range(clients)))
    return result


async def in_turn(targets: list[Target], turns: int) -> list[Result]:
    """One client sends requests to the targets in turn, so that a slowdown affects all."""
    each = [(Connection(target), Result()) for target in targets]
    for _ in range(turns):
        for connection, result in each:
            await connection.ask(result)
    return [result for _, result in each]


async def main() -> None:
    plan = orjson.loads(sys.stdin.buffer.read())
    targets = [Target(target) for target in plan["targets"]]
    began, cpu = time.perf_counter(), time.process_time()
    if "turns" in plan:
        results = await in_turn(targets, plan["turns"])
    else:
        results = [await crowd(target, plan["clients"], plan["seconds"]) for target in targets]
    cpu = time.process_time() - cpu
    made = [
        {
            "good": len(result.first_ms),
            "wrong": result.wrong,
            "closed": result.closed,
            "seconds": max(result.ended - began, 1e-9),
            "first_ms": result.first_ms,
            "bad": result.bad,
            "cpu_s": cpu,
        }
        for result in results
    ]
    sys.stdout.buffer.write(orjson.dumps(made))


if __name__ == "__main__":
    uvloop.run(main())
