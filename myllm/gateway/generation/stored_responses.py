"""Answers that have ids, from which other requests go on.

They are kept in the store of conversations: an id names its session and, in there, the answer
that has it. Going on from the last answer of a session continues that; going on from an older
one begins another session with a copy of what was said until there, which is stored with the
new answer, in one transaction.
"""

from __future__ import annotations

import re
import secrets
import time
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final, cast

from myllm.errors import NotFound
from myllm.gateway.generation.answers import ChatAnswer
from myllm.gateway.generation.events import Finished
from myllm.sessions.history import Extra, Merged, Message, system_in_force
from myllm.sessions.session import Session, SessionRef
from myllm.sessions.store import SessionStore

_ID: Final = re.compile(r"resp_([0-9a-f]{32})([0-9a-f]{16})")


class ResponseAnswer(ChatAnswer):
    """The answer to `messages`, which go on from the answer `previous`.

    `record` is what will be known of the answer beside what it says: its id (once the first
    event is there), what the request `asked`, and in the end its usage and how it `ended`: as
    Finished says it, or "left" when the client was gone.
    """

    def __init__(
        self,
        *args: Any,
        previous: str | None,
        instructions: str | None,
        asked: Mapping[str, Any],
        **fields: Any,
    ) -> None:
        super().__init__(*args, **fields)
        self._previous = previous
        self._instructions = instructions
        self.record: dict[str, Any] = {
            "id": "",
            "created_at": int(time.time()),
            "model": self.model.name,
            "asked": dict(asked),
        }

    @property
    def key(self) -> str:
        """What the ids of its parts are made of."""
        return key_of(self.record["id"])

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[tuple[Session, Merged], None]:
        system: Message | None = None
        before: tuple[Message, ...] = ()
        if self._previous is not None:
            session_id = _session_of(self._previous)
            opened = self._sessions.open(self._owner, session_id, self._session_timeout_s)
            async with opened as session:
                system, at = session.system, _find(session.messages, self._previous)
                if self._keeps and at == len(session.messages) - 1:
                    yield self._begun(session, system, tuple(session.messages))
                    return
                before = tuple(replace(each, key=None) for each in session.messages[: at + 1])
        opened = self._sessions.open(self._owner, None, self._session_timeout_s)
        async with opened as session:
            system = None if system is None else replace(system, key=None)
            yield self._begun(session, system, (), before)

    def _begun(
        self,
        session: Session,
        system: Message | None,
        kept: tuple[Message, ...],
        copied: tuple[Message, ...] = (),
    ) -> tuple[Session, Merged]:
        self.record["id"] = f"resp_{uuid.UUID(session.ref.id).hex}{secrets.token_hex(8)}"
        system = system_in_force(system, self._messages)
        turns = tuple(message for message in self._messages if message.role != "system")
        return session, Merged(system, kept, (), (*copied, *turns))

    def _shown(self, turn: Merged) -> list[Message]:
        """With the instructions, which are for this answer only."""
        if self._instructions is None:
            return turn.prompt()
        given = [self._instructions, *([turn.system.content] if turn.system else [])]
        system = Message("system", "\n\n".join(given))
        return [system, *turn.kept, *turn.new]

    async def _store(
        self, session: Session, turn: Merged, answer: Message, end: Finished | None
    ) -> None:
        self.record["ended"] = "left" if end is None else end.finish_reason
        self.record["usage"] = None if end is None else end.usage.as_dict()
        extra = cast(Extra, {**(answer.extra or {}), "response": self.record})
        await super()._store(session, turn, replace(answer, extra=extra), end)


async def stored(sessions: SessionStore, owner: str, response_id: str) -> Message:
    """The answer that has this id. Raises NotFound."""
    found = await (await sessions.archive()).load(SessionRef(owner, _session_of(response_id)))
    if found is None:
        raise _unknown(response_id)
    return found[1][_find(found[1], response_id)]


async def forget(sessions: SessionStore, owner: str, response_id: str) -> None:
    """Nobody can go on from this answer any more; the session goes with its last one.

    Raises NotFound, and Conflict while the session is being answered.
    """
    session = SessionRef(owner, _session_of(response_id))
    archive = await sessions.archive()
    found = await archive.load(session)
    if found is None:
        raise _unknown(response_id)
    said = found[1]
    at = _find(said, response_id)
    if sum("response" in (message.extra or {}) for message in said) == 1:
        await sessions.remove(session)
        return
    kept = {name: value for name, value in (said[at].extra or {}).items() if name != "response"}
    await archive.rewrite(replace(said[at], extra=cast(Extra, kept) or None))


def key_of(response_id: str) -> str:
    """What the ids of a response's parts are made of."""
    return response_id[-16:]


def _session_of(response_id: str) -> str:
    found = _ID.fullmatch(response_id)
    if found is None:
        raise _unknown(response_id)
    return str(uuid.UUID(found[1]))


def _find(said: Sequence[Message], response_id: str) -> int:
    for index, message in enumerate(said):
        if (message.extra or {}).get("response", {}).get("id") == response_id:
            return index
    raise _unknown(response_id)


def _unknown(response_id: str) -> NotFound:
    return NotFound(f"Response '{response_id}' not found")
