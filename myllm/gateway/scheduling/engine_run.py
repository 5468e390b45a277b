"""One run of an engine, from start to end, and which of its slots a request gets.

    loading ──> ready ──> draining      a run that has ended is forgotten
       └──────────────────────┘         (drained while it loads)

A request gets the free slot that holds its session. Otherwise it gets, of the slots that hold
neither a session nor another owner's text, the one that has read the longest common prefix of its
prompt, or the least recently used one. If there is none, the least recently used of all free slots
gives way, with a session or with what another owner has left; `kv/slot_cache.py` saves the one and
erases the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from myllm.gateway.prompt.prefixes import Pieces, common_chars
from myllm.gateway.scheduling.suspects import DepartedRequest
from myllm.gateway.scheduling.tickets import Plan, Ticket
from myllm.sessions.session import SessionRef

FOREVER = float("inf")
_MAX_DEPARTED = 8
# If a request makes an engine crash, it does so within this time, while the engine delivers others.
_SETTLED_S = 1.0


@dataclass
class Slot:
    """One of an engine's slots; `owner`, `session` and `pieces` are what its last request left."""

    number: int
    ticket: Ticket | None = None
    owner: str | None = None
    session: SessionRef | None = None
    pieces: Pieces = ()
    last_use: int = 0


@dataclass(eq=False)
class EngineRun:
    """One engine process from its start to its end. Times are monotonic, in seconds.

    `drain_until` bounds how long a draining run may go on answering; `drain_reason` says in the
    log why it drains. `departed` are the latest requests whose client left before the engine gave
    them anything.
    """

    id: int
    plan: Plan
    state: Literal["loading", "ready", "draining"] = "loading"
    slots: list[Slot] = field(default_factory=list)
    ready_at: float = 0.0
    idle_since: float = 0.0
    keep_alive_s: float = 0.0
    drain_until: float = FOREVER
    drain_reason: str = ""
    stopping: bool = False
    departed: deque[DepartedRequest] = field(default_factory=lambda: deque(maxlen=_MAX_DEPARTED))

    def tickets(self) -> list[Ticket]:
        """The requests that it is answering."""
        return [slot.ticket for slot in self.slots if slot.ticket is not None]

    def is_busy(self) -> bool:
        return any(slot.ticket is not None for slot in self.slots)

    def has_free_slot(self) -> bool:
        return any(slot.ticket is None for slot in self.slots)

    def owners(self) -> list[str | None]:
        """The owner of each slot, by number: of its request, or else of its last one."""
        return [
            slot.owner
            if slot.ticket is None or slot.ticket.only_asks
            else slot.ticket.request.client.owner
            for slot in self.slots
        ]

    def expires_at(self) -> float:
        """When it is unloaded, if it stays idle."""
        if self.plan.pinned or self.keep_alive_s < 0:
            return FOREVER
        return self.idle_since + self.keep_alive_s

    def become_ready(self, slots: int, now: float) -> None:
        """It has loaded, and serves `slots` requests at a time."""
        self.state = "ready"
        self.slots = [Slot(number) for number in range(slots)]
        self.ready_at = self.idle_since = now

    def seat(self, ticket: Ticket, use: int) -> None:
        """Reserve the best free slot for `ticket`."""
        slot = _best_slot([s for s in self.slots if s.ticket is None], ticket)
        slot.ticket = ticket
        if not ticket.only_asks:
            slot.last_use = use
        ticket.run, ticket.slot = self.id, slot.number

    def has_given(self, ticket: Ticket, now: float) -> None:
        """The engine has given `ticket` something new, so it still works. Requests that left some
        time before are not suspected of what happens from now on."""
        ticket.answered_by = self.id
        while self.departed and now - self.departed[0].left_at > _SETTLED_S:
            self.departed.popleft()

    def leave(self, ticket: Ticket, now: float) -> None:
        """Free the slot of `ticket`."""
        slot = self.slots[ticket.slot] if ticket.slot is not None else None
        if slot is not None and slot.ticket is ticket:
            slot.ticket = None
            if not (ticket.only_asks or ticket.untouched):
                slot.owner, slot.session = ticket.request.client.owner, ticket.session
                slot.pieces = ticket.pieces
            self.idle_since = now
        if ticket.request.keep_alive_s is not None:
            self.keep_alive_s = ticket.request.keep_alive_s


def least_recently_used(runs: Iterable[EngineRun]) -> list[EngineRun]:
    """`runs`, the one that has been idle for longest first."""
    return sorted(runs, key=lambda run: run.idle_since)


def _best_slot(free: list[Slot], ticket: Ticket) -> Slot:
    own = [slot for slot in free if ticket.session is not None and slot.session == ticket.session]
    if own:
        return own[0]
    owner = ticket.request.client.owner
    unowned = [slot for slot in free if slot.session is None and slot.owner in (None, owner)]
    alike = max(unowned, key=lambda slot: common_chars(slot.pieces, ticket.pieces), default=None)
    if alike is not None and common_chars(alike.pieces, ticket.pieces):
        return alike
    return min(unowned or free, key=lambda slot: slot.last_use)
