"""What one slot of one engine holds, and who has it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from myllm.gateway.scheduling.tickets import Ticket
from myllm.sessions.kv_states import KvState
from myllm.sessions.session import SessionRef


@dataclass(eq=False)
class SlotContents:
    """What one slot of one run holds: `state` is None while nobody knows.

    `owner` is whose it is; None: it is empty. `lock` is contents while it is saved, restored or
    erased, and `in_use` while a request has the slot. `taken_by` is the last request that made the
    slot its own, which one that leaves early never does, and `noted` when it has told what the slot
    holds now. `restored` are the tokens that were read back and not seen in use yet; `expected`
    those of them that the prompt now being answered begins with. `put_off` counts how often its
    save has waited for others.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    owner: str | None = None
    session: SessionRef | None = None
    state: KvState | None = None
    saved: bool = False
    in_use: bool = False
    taken_by: Ticket | None = None
    noted: bool = False
    put_off: int = 0
    restored: int = 0
    expected: int = 0
    timer: asyncio.TimerHandle | None = None

    def belongs_to(self, ticket: Ticket) -> bool:
        """Whether it holds the session of `ticket`."""
        return self.session is not None and self.session == ticket.session

    def is_unsaved(self) -> bool:
        """Whether it holds what no file has."""
        return self.state is not None and not self.saved
