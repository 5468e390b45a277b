"""One clock for the answers of an engine that come quickly: it reads them together.

Waking up, waiting and reading cost the same however much there is to read, and far more than
what is done with it. An engine on the same cores is faster, too, when it is interrupted less.
"""

from __future__ import annotations

import asyncio
import select
from contextlib import suppress
from typing import Protocol

from myllm.loops import note_failure


class Member(Protocol):
    """What is read by a pulse."""

    def fileno(self) -> int: ...

    def on_pulse(self) -> bool:
        """Read; False to leave."""
        ...

    def on_hang_up(self) -> None:
        """The other side has closed; called once, when it has left."""
        ...


class Pulse:
    """Calls its members 40 times a second, as long as it has any.

    That is as smooth as a film to whoever reads. A few are called more often, for theirs may be
    faster than their sockets can hold, and the end of an answer does not wait then. A crowd is
    called in small groups, between which the event loop does what else there is to do.
    """

    _FEW = 4
    _FEW_EVERY_S, _MANY_EVERY_S = 0.01, 0.025
    _GROUP = 32

    def __init__(self) -> None:
        self._members: dict[int, Member] = {}
        self._lately = 0  # how many they were at the last call
        self._running = False
        # The event loop can only watch for data; this one tells it when somebody hangs up.
        self._hang_ups: select.epoll | None = None
        self._watched: set[int] = set()

    def join(self, member: Member) -> None:
        """Call `member` from the next time on, until it returns False or leaves."""
        self._members[member.fileno()] = member
        if self._are_few():
            self._watch(member.fileno())
        if not self._running:
            self._running = True
            self._go_on()

    def leave(self, member: Member) -> None:
        """Do not call it any more; one that is no member may leave, too."""
        file = member.fileno()
        if self._members.get(file) is member:
            del self._members[file]
            if self._hang_ups is not None and file in self._watched:
                self._watched.remove(file)
                with suppress(OSError):  # which a file that was closed has left by itself
                    self._hang_ups.unregister(file)

    def close(self) -> None:
        """Call nobody any more."""
        self._members.clear()
        self._watched.clear()
        if self._hang_ups is not None:
            asyncio.get_running_loop().remove_reader(self._hang_ups.fileno())
            self._hang_ups.close()
            self._hang_ups = None

    def _are_few(self) -> bool:
        return max(self._lately, len(self._members)) <= self._FEW

    def _watch(self, file: int) -> None:
        if file in self._watched:
            return
        if self._hang_ups is None:
            self._hang_ups = select.epoll()
            asyncio.get_running_loop().add_reader(self._hang_ups.fileno(), self._look)
        self._hang_ups.register(file, select.EPOLLRDHUP)
        self._watched.add(file)

    def _look(self) -> None:
        for file, _ in self._hang_ups.poll(0) if self._hang_ups is not None else ():
            if member := self._members.get(file):
                self.leave(member)
                member.on_hang_up()

    def _beat(self) -> None:
        self._lately = len(self._members)
        if not self._members:
            self._running = False
            return
        self._go_on()
        self._call(list(self._members.values()))

    def _go_on(self) -> None:
        every = self._FEW_EVERY_S if self._are_few() else self._MANY_EVERY_S
        asyncio.get_running_loop().call_later(every, self._beat)

    def _call(self, members: list[Member]) -> None:
        now, later = members[: self._GROUP], members[self._GROUP :]
        for member in now:
            if self._members.get(member.fileno()) is not member:
                continue
            try:
                stays = member.on_pulse()
            except Exception as failure:  # noqa: BLE001 - or the others would not be read
                note_failure("reading an answer", failure)
                stays = False
            if not stays:
                self.leave(member)
        if later:
            asyncio.get_running_loop().call_soon(self._call, later)
