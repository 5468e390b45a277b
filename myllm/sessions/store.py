"""Conversations in memory: they last as long as the server runs.

The least recently used ones are forgotten when there are too many.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from myllm.errors import InvalidRequest, Unavailable
from myllm.sessions.history import Merged, Message, merge

MOST_SESSIONS = 1000
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")


@dataclass
class Session:
    """One conversation. `lock` is held by the one request that may change it."""

    owner: str
    id: str
    system: Message | None = None
    messages: list[Message] = field(default_factory=list)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def key(self) -> str:
        """What no other session has: two owners may choose the same id. An id has no slash."""
        return f"{self.owner}/{self.id}"

    def merged(self, posted: Sequence[Message]) -> Merged:
        """What the conversation is with `posted`; nothing is stored yet."""
        return merge(self.system, self.messages, posted)

    def store(self, turn: Merged, answer: Message) -> None:
        """Store a turn with its answer, which continues a last assistant message."""
        self.system = turn.system
        messages = [*turn.kept, *turn.new]
        if messages and messages[-1].role == "assistant":
            begun = messages.pop()
            answer = Message("assistant", begun.content + answer.content, answer.partial)
        self.messages = [*messages, answer]


class SessionStore:
    """Finds and makes sessions."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    @asynccontextmanager
    async def open(
        self, owner: str, session_id: str | None, timeout_s: float
    ) -> AsyncGenerator[Session, None]:
        """The owner's session, new if unknown, for this request alone until the context is left.

        Raises InvalidRequest for an id of a wrong form, Unavailable when another request
        holds the session for longer than `timeout_s`.
        """
        session = self._get_or_make(owner, session_id)
        try:
            await asyncio.wait_for(session.lock.acquire(), timeout_s)
        except TimeoutError:
            detail = f"Another request on session '{session.id}' is still being answered"
            raise Unavailable(detail, retry_after_s=10) from None
        try:
            yield session
        finally:
            session.lock.release()
            self._forget_oldest()

    def _get_or_make(self, owner: str, session_id: str | None) -> Session:
        if session_id is not None and not _ID.fullmatch(session_id):
            raise InvalidRequest(
                "session_id must be 1 to 128 characters of A-Z a-z 0-9 _ . : - "
                "and begin with a letter or digit"
            )
        session = Session(owner, session_id or str(uuid.uuid4()))
        session = self._sessions.setdefault(session.key, session)
        self._sessions.move_to_end(session.key)
        return session

    def _forget_oldest(self) -> None:
        idle = (key for key, session in self._sessions.items() if not session.lock.locked())
        surplus = len(self._sessions) - MOST_SESSIONS
        for key in [key for key, _ in zip(idle, range(max(surplus, 0)), strict=False)]:
            del self._sessions[key]
