"""What one slot of one engine holds: the states, and the changes between them.

    state       owner  session  kv   saved  restored   what the engine may be asked to do
    empty       no     no       no   no     0
    anonymous   yes    no       no   no     0          erase
    unknown     yes    yes      no   no     0          restore
    unsaved     yes    yes      yes  no     0          save
    saved       yes    yes      yes  yes    0 or more

    empty ──assign──> unknown ──record──> unsaved ──mark_saved──> saved
                       │   ▲                │  ▲                  │ │ ▲
                       │   │                │  └──────record──────┘ │ │
                       │   └──invalidate────┴───────────────────────┘ │
                       └────────────────mark_restored─────────────────┘

`vacate` leads from every state but empty to anonymous. `assign` leads from anonymous to unknown;
without a session it leads to anonymous, from empty too.

A slot is anonymous after a request that belongs to no session, and between two sessions. It is
unknown while a request of a session writes to it, and after such a request has failed. The engine
saves, erases and restores a slot while `lock` is held; a request waits for the lock before it uses
the slot.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from myllm.gateway.scheduling.tickets import Ticket
from myllm.sessions.kv_states import KvState
from myllm.sessions.session import SessionRef


@dataclass(eq=False)
class SlotContents:
    """The contents of one slot during one run of its engine, and the request that uses it.

    `owner` is whose text the slot holds. `kv` describes the text and tokens of `session`, and
    `saved` is whether a file holds the same. `restored` counts the tokens that were restored and
    that no request has used yet; `expected` counts those of them with which the current prompt
    begins.

    `in_use` is set while a request has the slot. `taken_by` is the last request that made the
    slot its own, which a request that leaves early never does; `recorded` is whether that request
    has recorded what the slot holds now. `postponed` counts how often `save_timer` was set again
    because the engine was busy.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    owner: str | None = None
    session: SessionRef | None = None
    kv: KvState | None = None
    saved: bool = False
    restored: int = 0
    expected: int = 0
    in_use: bool = False
    taken_by: Ticket | None = None
    recorded: bool = False
    save_timer: asyncio.TimerHandle | None = None
    postponed: int = 0

    def holds_session_of(self, ticket: Ticket) -> bool:
        """Whether the slot holds the session of `ticket`."""
        return self.session is not None and self.session == ticket.session

    def is_unsaved(self) -> bool:
        """Whether the slot holds a state that no file has."""
        return self.kv is not None and not self.saved

    def take(self, ticket: Ticket) -> None:
        """Make the slot that of `ticket`, which has recorded nothing yet."""
        self.taken_by, self.recorded, self.expected = ticket, False, 0

    def vacate(self) -> None:
        """Give up the session. The slot still holds the text of its owner."""
        self.invalidate()
        self.session = None

    def assign(self, owner: str, session: SessionRef | None) -> None:
        """Give a vacated slot, which holds no other owner's text, to an owner and a session."""
        self.owner, self.session = owner, session

    def record(self, kv: KvState) -> None:
        """A request has read and written `kv`."""
        self.kv, self.saved, self.recorded = kv, False, True
        self.restored = self.expected = 0

    def invalidate(self) -> None:
        """What the slot holds is no longer known."""
        self.kv, self.saved = None, False
        self.restored = self.expected = 0

    def mark_saved(self, kv: KvState) -> None:
        """`kv` needs no saving any more; no change if the slot holds something else by now."""
        self.saved = self.kv is kv

    def mark_restored(self, kv: KvState, tokens: int) -> None:
        """The engine has read `tokens` tokens of `kv` back from its file."""
        self.kv, self.saved, self.restored = kv, True, tokens

    def cancel_save(self) -> None:
        """Stop the timer that would save the slot."""
        if self.save_timer is not None:
            self.save_timer.cancel()
