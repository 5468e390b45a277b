"""One clock for the answers of an engine that come quickly: it reads them together.

Waking up, waiting and reading cost the same however much there is to read, and far more than
what is done with it. An engine on the same cores is faster, too, when it is interrupted less.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from myllm.hang_ups import HangUps
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
        self._hang_ups = HangUps()

    def join(self, member: Member) -> None:
        """Call `member` from the next time on, until it returns False or leaves."""
        self._members[member.fileno()] = member
        if self._are_few():
            self._hang_ups.watch(member.fileno(), lambda: self._hung_up(member))
        if not self._running:
            self._running = True
            self._go_on()

    def leave(self, member: Member) -> None:
        """Do not call it any more; one that is no member may leave, too."""
        file = member.fileno()
        if self._members.get(file) is member:
            del self._members[file]
            self._hang_ups.forget(file)

    def close(self) -> None:
        """Call nobody any more."""
        self._members.clear()
        self._hang_ups.close()

    def _are_few(self) -> bool:
        return max(self._lately, len(self._members)) <= self._FEW

    def _hung_up(self, member: Member) -> None:
        if self._members.get(member.fileno()) is member:
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
