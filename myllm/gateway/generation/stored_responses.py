"""Answers with ids, which later requests can continue (OpenAI's `/v1/responses`).

They are kept in the store of conversations: an id names its session and, in there, the answer
that has it. A request that continues the last answer of a session continues the session. One
that continues an older answer begins another session, with a copy of the conversation up to
there, which is stored with the new answer in one transaction.
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
from myllm.gateway.generation.chat_job import OpenSession
from myllm.gateway.generation.events import Finished
from myllm.gateway.usage import Usage
from myllm.sessions.history import Extra, Merged, Message, placed, split, system_in_force
from myllm.sessions.session import Session, SessionRef
from myllm.sessions.store import SessionStore

_PREFIX: Final = "resp_"
_ID: Final = re.compile(rf"{_PREFIX}([0-9a-f]{{32}})([0-9a-f]{{16}})")
KEY_CHARS: Final = 48
"""The length of what `key_of` returns."""


class ResponseTurn:
    """Messages that continue the answer `previous`; a new conversation, if that is None.

    `instructions` are a system message for this answer only. `record` is what is known of the
    answer besides its text, for clients that ask for it later: its id (once the session is
    opened), what the request `asked`, what its `tools` are to the client, the `order` of its items
    as far as it has come, and in the end its usage and how it `ended`: as Finished has it, or
    "left" if the client left before.
    """

    session_id: None = None

    def __init__(
        self,
        messages: Sequence[Message],
        previous: str | None,
        instructions: str | None,
        stores: bool,
        model: str,
        asked: Mapping[str, Any],
        tools: Mapping[str, Any],
    ) -> None:
        self.messages = messages
        self.stores = stores
        self._previous = previous
        self._instructions = instructions
        self.record: dict[str, Any] = {
            "id": "",
            "created_at": int(time.time()),
            "model": model,
            "asked": dict(asked),
            "tools": dict(tools),
            "order": [],
        }

    @property
    def truncates(self) -> bool:
        """Whether the request allows to leave out the oldest turns of a conversation."""
        return bool(self.record["asked"]["truncation"] == "auto")

    @property
    def key(self) -> str:
        """The common part of the ids of the answer's parts."""
        return key_of(self.record["id"])

    @asynccontextmanager
    async def opened(
        self, open_session: OpenSession
    ) -> AsyncGenerator[tuple[Session, Merged], None]:
        """The previous answer's session, or a new one with a copy of the conversation so far."""
        system: Message | None = None
        before: tuple[Message, ...] = ()
        if self._previous is not None:
            async with open_session(_session_of(self._previous)) as session:
                system, at = session.system, _find(session.messages, self._previous)
                if self.stores and at == len(session.messages) - 1:
                    yield self._begun(session, system, tuple(session.messages))
                    return
                before = tuple(replace(each, key=None) for each in session.messages[: at + 1])
        async with open_session(None) as session:
            system = None if system is None else replace(system, key=None)
            yield self._begun(session, system, (), before)

    def visible(self, conversation: Merged) -> list[Message]:
        """The conversation under the instructions."""
        if self._instructions is None:
            return conversation.prompt()
        stored = [conversation.system.content] if conversation.system else []
        system = Message("system", "\n\n".join([self._instructions, *stored]))
        return [system, *conversation.kept, *conversation.new]

    def complete(self, answer: Message, end: Finished | None) -> Message:
        """`answer` with the record, from which it can be shown and continued."""
        self.record["ended"] = "left" if end is None else end.finish_reason
        self.record["usage"] = None if end is None else _counts(end.usage)
        return replace(answer, extra=cast(Extra, {**(answer.extra or {}), "response": self.record}))

    def _begun(
        self,
        session: Session,
        system: Message | None,
        kept: tuple[Message, ...],
        copied: tuple[Message, ...] = (),
    ) -> tuple[Session, Merged]:
        self.record["id"] = f"{_PREFIX}{uuid.UUID(session.ref.id).hex}{secrets.token_hex(8)}"
        if self._previous is None:
            leading, turns = split(self.messages)
            system = system_in_force(system, leading)
        else:  # all that continues an answer comes after it
            turns = [placed(message) for message in self.messages]
        return session, Merged(system, kept, (), (*copied, *turns))


def _counts(usage: Usage) -> dict[str, int]:
    return usage.as_dict() | {"reasoning_tokens": usage.reasoning_tokens}


async def stored(sessions: SessionStore, owner: str, response_id: str) -> Message:
    """Return the answer with this id. Raises NotFound."""
    session = SessionRef(owner, _session_of(response_id))
    archive = await sessions.archive()
    found = await archive.newest(session, response_id, lambda each: _has_id(each, response_id))
    if found is None:
        raise _unknown(response_id)
    return found


async def forget(sessions: SessionStore, owner: str, response_id: str) -> None:
    """Make this answer impossible to continue; remove its session with its last such answer.

    Raises NotFound, and Conflict while the session is being answered.
    """
    session = SessionRef(owner, _session_of(response_id))
    archive = await sessions.archive()
    found = await archive.load(session)
    if found is None:
        raise _unknown(response_id)
    messages = found[1]
    at = _find(messages, response_id)
    if sum("response" in (message.extra or {}) for message in messages) == 1:
        await sessions.remove(session)
        return
    kept = {name: value for name, value in (messages[at].extra or {}).items() if name != "response"}
    await archive.rewrite(replace(messages[at], extra=cast(Extra, kept) or None))


def key_of(response_id: str) -> str:
    """Return the common part of the ids of a response's parts."""
    return response_id.removeprefix(_PREFIX)


def _session_of(response_id: str) -> str:
    found = _ID.fullmatch(response_id)
    if found is None:
        raise _unknown(response_id)
    return str(uuid.UUID(found[1]))


def _find(messages: Sequence[Message], response_id: str) -> int:
    for index, message in enumerate(messages):
        if _has_id(message, response_id):
            return index
    raise _unknown(response_id)


def _has_id(message: Message, response_id: str) -> bool:
    return (message.extra or {}).get("response", {}).get("id") == response_id


def _unknown(response_id: str) -> NotFound:
    return NotFound(f"Response '{response_id}' not found")
