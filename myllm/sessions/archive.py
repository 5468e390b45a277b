"""The archive of sessions: only this module reads and writes their rows.

A turn and its answer are written in one transaction, so no later prompt contains half of a turn.
Messages are never removed from a session; those that are no longer in force are marked.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from myllm.errors import InvalidRequest, NotFound
from myllm.sessions import rows
from myllm.sessions.database import Database
from myllm.sessions.history import Merged, Message
from myllm.sessions.session import Session, SessionRef, StoredMessage, Summary
from myllm.sessions.tables import kv_files, messages, sessions

_TITLE_CHARS: Final = 60
_SURPLUS_BATCH: Final = 100


class Archive:
    """The sessions in a database. Owners see only their own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, ref: SessionRef) -> tuple[Summary, list[Message]] | None:
        """Return a session and its messages in force, or None if it is unknown."""
        return await self._database.read(lambda connection: rows.in_force(connection, ref))

    async def newest(
        self, ref: SessionRef, text: str, is_wanted: Callable[[Message], bool]
    ) -> Message | None:
        """Return the newest wanted message in force of those with `text` in their `extra`, or None.

        The other messages of the session are not loaded.
        """
        holds = self._place(sa.cast(messages.c.extra, sa.Text), text) > 0
        return await self._database.read(
            lambda connection: rows.newest(connection, ref, holds, is_wanted)
        )

    async def listed(self, ref: SessionRef) -> tuple[Summary, list[StoredMessage]]:
        """Return a session and all its messages, oldest first. Raises NotFound."""
        return await self._database.read(lambda connection: rows.all_of(connection, ref))

    async def page(
        self,
        owner: str | None,
        limit: int,
        cursor: str | None = None,
        search: str = "",
        model: str = "",
    ) -> tuple[list[Summary], str | None]:
        """Return at most `limit` sessions, the last changed first, and the cursor of the next page.

        They are those of one owner, or of all with None.
        `search` is a text in a title or a message, in upper or lower case. Raises InvalidRequest
        for a cursor that no page has given, and Unavailable for a search that takes too long or
        waits too long for other searches.
        """
        query = sa.select(*rows.SUMMARY)
        if owner is not None:
            query = query.where(sessions.c.owner == owner)
        if model:
            query = query.where(sessions.c.model == model)
        if search:
            in_messages = sa.select(messages.c.key).where(
                messages.c.session == sessions.c.key, self._contains(messages.c.content, search)
            )
            in_title = self._contains(sessions.c.title, search)
            query = query.where(in_title | in_messages.exists())
        if cursor is not None:
            query = query.where(sa.tuple_(sessions.c.updated, sessions.c.key) < _position(cursor))
        query = query.order_by(sessions.c.updated.desc(), sessions.c.key.desc()).limit(limit + 1)

        def read(connection: Connection) -> list[Summary]:
            return [Summary(*row) for row in connection.execute(query)]

        if search:
            found = await self._database.search(owner or "", read)
        else:
            found = await self._database.read(read)
        if len(found) <= limit:
            return found, None
        last = found[limit - 1]
        return found[:limit], f"{last.updated!r}_{last.key}"

    def _contains(self, text: sa.ColumnElement[str], searched: str) -> sa.ColumnElement[bool]:
        """Whether `searched` occurs in `text`.

        LIKE would compare letter by letter from each position in the text, and could not be
        interrupted before its end.
        """
        return self._place(sa.func.lower(text), sa.func.lower(searched)) > 0

    def _place(
        self, text: sa.ColumnElement[str], searched: str | sa.ColumnElement[str]
    ) -> sa.ColumnElement[int]:
        """Where `searched` begins in `text`; 0 if it is not there."""
        find = sa.func.instr if self._database.is_sqlite else sa.func.strpos
        return find(text, searched)

    async def append(self, session: Session, model: str, turn: Merged, answer: Message) -> None:
        """Store a turn with its answer, which continues a last message of role assistant.

        Raises Conflict when the session was changed or removed since it was loaded.
        """
        now, begun = time.time(), turn.begun
        answer = answer if begun is None else answer.continuing(begun)
        new = [message for message in turn.new if message is not begun]
        if turn.system is not None and turn.system.key is None:
            new.insert(0, turn.system)
        if answer.key is None:
            new.append(answer)

        def write(connection: Connection) -> None:
            left_out = session.left_out
            if session.stored is None:
                title = title_of(turn.new)
                rows.insert_whole(connection, session.ref, model, title, now, new, left_out)
                return
            key = rows.advance(connection, session.stored, model, now, left_out)
            rows.supersede_all_but(connection, key, turn.kept_keys())
            if answer.key is not None:
                rows.rewrite(connection, answer)
            rows.insert_messages(connection, key, new, now)
            rows.count(connection, key)

        await self._database.write(write)

    async def rewrite(self, message: Message) -> None:
        """Replace a stored message by `message`, which has the same key."""
        await self._database.write(lambda connection: rows.rewrite(connection, message))

    async def rename(self, ref: SessionRef, title: str) -> None:
        """Give a session a title. Raises NotFound."""

        def write(connection: Connection) -> None:
            found = rows.existing(connection, ref)
            change = sessions.update().where(sessions.c.key == found.key)
            connection.execute(change.values(title=title))

        await self._database.write(write)

    async def check_exists(self, ref: SessionRef) -> None:
        """Raise NotFound if the session does not exist."""
        await self._database.read(lambda connection: rows.existing(connection, ref))

    async def remove(self, ref: SessionRef) -> None:
        """Remove a session, its messages, and the records of its states in all folders.

        The records hold the session's text as tokens. Raises NotFound.
        """
        states = kv_files.c.owner == ref.owner, kv_files.c.session == ref.id

        def write(connection: Connection) -> None:
            found = rows.existing(connection, ref)
            connection.execute(sessions.delete().where(sessions.c.key == found.key))
            connection.execute(kv_files.delete().where(*states))

        await self._database.write(write)

    async def take_back(self, ref: SessionRef, at: int) -> None:
        """Supersede message `at` and all that follow it; the system message stays in force.

        Raises NotFound for an unknown session, and for a message that is not in force.
        """

        def write(connection: Connection) -> None:
            loaded = rows.in_force(connection, ref)
            if loaded is None:
                raise rows.unknown(ref.id)
            found, in_force = loaded
            turns = [each.key or 0 for each in in_force if not each.leads]
            if at not in turns:
                raise NotFound(f"Session '{ref.id}' has no message {at} in force")
            kept = {key for key in turns if key < at}
            systems = {each.key or 0 for each in in_force if each.leads}
            left_out = min(found.left_out, len(kept))
            key = rows.advance(connection, found, found.model, time.time(), left_out)
            rows.supersede_all_but(connection, key, kept | systems)
            rows.count(connection, key)

        await self._database.write(write)

    async def fork(self, ref: SessionRef, new_id: str, at: int | None) -> None:
        """Begin the same owner's session `new_id` with the messages up to `at`, or with all.

        Raises NotFound for an unknown session or message, and Conflict when `new_id` is taken.
        """
        found, listed = await self.listed(ref)
        if at is not None:
            ends = [n for n, s in enumerate(listed) if s.message.key == at and not s.superseded]
            if not ends:
                raise NotFound(f"Session '{ref.id}' has no message {at} in force")
            listed = listed[: ends[0] + 1]
        # The system message that was in force then. A later one may have replaced it.
        systems = [each.message for each in listed if each.message.leads][-1:]
        turns = [s.message for s in listed if not s.message.leads and not s.superseded]
        new = SessionRef(ref.owner, new_id)
        await self.add(new, found.model, found.title, [*systems, *turns])

    async def add(
        self, ref: SessionRef, model: str, title: str, history: Sequence[Message]
    ) -> None:
        """Store a whole session. Raises Conflict when its id is taken."""
        now = time.time()
        title = title or title_of(history)
        await self._database.write(
            lambda connection: rows.insert_whole(connection, ref, model, title, now, history)
        )

    async def surplus(
        self, before: float | None, max_count: int | None, max_bytes: int | None
    ) -> list[Summary]:
        """Return sessions of all owners that exceed a limit, the oldest first, a batch at a time.

        These are the sessions that were not changed since `before`, and those of one owner behind
        the `max_count` newest, or behind the newest that hold `max_bytes` together.
        """
        newest = sessions.c.updated.desc(), sessions.c.key.desc()
        mine: dict[str, Any] = {"partition_by": sessions.c.owner, "order_by": newest}
        ranked = sa.select(
            *rows.SUMMARY,
            sa.func.row_number().over(**mine).label("place"),
            sa.func.sum(sessions.c.size_bytes).over(**mine).label("bytes"),
        ).subquery()
        reasons = [
            ranked.c.updated < before if before is not None else sa.false(),
            ranked.c.place > max_count if max_count is not None else sa.false(),
            ranked.c.bytes > max_bytes if max_bytes is not None else sa.false(),
        ]
        columns = [ranked.c[column.name] for column in rows.SUMMARY]
        query = sa.select(*columns).where(sa.or_(*reasons)).order_by(ranked.c.updated)
        query = query.limit(_SURPLUS_BATCH)
        return await self._database.read(
            lambda connection: [Summary(*row) for row in connection.execute(query)]
        )


def title_of(history: Sequence[Message]) -> str:
    """Return the first words of the first message of role user."""
    first = next((m.content for m in history if m.role == "user" and m.content.strip()), "")
    line = " ".join(first.split())
    return line if len(line) <= _TITLE_CHARS else line[: _TITLE_CHARS - 1].rstrip() + "…"


def _position(cursor: str) -> sa.Tuple:
    try:
        updated, key = cursor.split("_")
        position = float(updated), int(key)
    except ValueError:
        position = 0.0, -1
    if not 0 <= position[1] < 2**63 or not math.isfinite(position[0]):
        raise InvalidRequest("cursor must be the next_cursor of another page")
    return sa.tuple_(sa.literal(position[0]), sa.literal(position[1]))
