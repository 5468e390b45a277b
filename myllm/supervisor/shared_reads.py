"""One timer for an engine's fast answers, which reads them together.

Waking up, waiting and reading cost the same however much there is to read, and far more than
handling what was read. An engine on the same cores is also faster when it is interrupted less.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from myllm.disconnects import Disconnects
from myllm.loops import note_failure


class TimedStream(Protocol):
    """A stream that the timer reads."""

    def fileno(self) -> int: ...

    def on_read_due(self) -> bool:
        """Read what has come; return False to leave the timer."""
        ...

    def on_disconnect(self) -> None:
        """The other side has closed. Called once, after the stream has left the timer."""
        ...


class SharedReadTimer:
    """Reads its streams 40 times a second, as long as it has any.

    That is as smooth as a film to a person who reads. A few streams are read more often: each may
    be faster than its socket can hold, and the end of an answer does not wait then. A crowd is
    read in small groups, between which the event loop does its other work.
    """

    _FEW = 4
    _FEW_EVERY_S, _MANY_EVERY_S = 0.01, 0.025
    _GROUP = 32

    def __init__(self) -> None:
        self._streams: dict[int, TimedStream] = {}
        self._lately = 0  # how many there were at the last call
        self._running = False
        self._disconnects = Disconnects()

    def join(self, stream: TimedStream) -> None:
        """Read `stream` from the next time on, until it returns False or leaves."""
        self._streams[stream.fileno()] = stream
        if self._are_few():
            self._disconnects.watch(stream.fileno(), lambda: self._disconnected(stream))
        if not self._running:
            self._running = True
            self._go_on()

    def leave(self, stream: TimedStream) -> None:
        """Stop reading `stream`; does nothing if it has not joined."""
        file = stream.fileno()
        if self._streams.get(file) is stream:
            del self._streams[file]
            self._disconnects.forget(file)

    def close(self) -> None:
        """Stop reading all streams."""
        self._streams.clear()
        self._disconnects.close()

    def _are_few(self) -> bool:
        return max(self._lately, len(self._streams)) <= self._FEW

    def _disconnected(self, stream: TimedStream) -> None:
        if self._streams.get(stream.fileno()) is stream:
            self.leave(stream)
            stream.on_disconnect()

    def _read_all(self) -> None:
        self._lately = len(self._streams)
        if not self._streams:
            self._running = False
            return
        self._go_on()
        self._call(list(self._streams.values()))

    def _go_on(self) -> None:
        every = self._FEW_EVERY_S if self._are_few() else self._MANY_EVERY_S
        asyncio.get_running_loop().call_later(every, self._read_all)

    def _call(self, streams: list[TimedStream]) -> None:
        now, later = streams[: self._GROUP], streams[self._GROUP :]
        for stream in now:
            if self._streams.get(stream.fileno()) is not stream:
                continue
            try:
                stays = stream.on_read_due()
            except Exception as failure:  # noqa: BLE001 - or the others would not be read
                note_failure("reading an answer", failure)
                stays = False
            if not stays:
                self.leave(stream)
        if later:
            asyncio.get_running_loop().call_soon(self._call, later)
