"""What is stored of conversations: read and written here, and nowhere else.

A turn is written in one transaction with its answer, so a later prompt never carries half of
one. Messages are never removed from a session: those that are no longer in force are marked.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
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
_REMOVED_AT_ONCE: Final = 100


class Archive:
    """The sessions in a database. An owner sees only what is the owner's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, ref: SessionRef) -> tuple[Summary, list[Message]] | None:
        """A session and its messages in force, the system message among them; None if unknown."""
        return await self._database.read(lambda connection: rows.in_force(connection, ref))

    async def listed(self, ref: SessionRef) -> tuple[Summary, list[StoredMessage]]:
        """A session and all its messages, oldest first. Raises NotFound."""
        return await self._database.read(lambda connection: rows.all_of(connection, ref))

    async def page(
        self, owner: str, limit: int, cursor: str | None = None, search: str = "", model: str = ""
    ) -> tuple[list[Summary], str | None]:
        """At most `limit` sessions, the last changed first, and the cursor of the next page.

        `search` is a text in a title or a message, in upper or lower case. Raises
        InvalidRequest for a cursor that no page has given, and Unavailable for a search that takes
        too long, or has to wait too long for others.
        """
        query = sa.select(*rows.SUMMARY).where(sessions.c.owner == owner)
        if model:
            query = query.where(sessions.c.model == model)
        if search:
            said = sa.select(messages.c.key).where(
                messages.c.session == sessions.c.key, self._has(messages.c.content, search)
            )
            titled = self._has(sessions.c.title, search)
            query = query.where(titled | said.exists())
        if cursor is not None:
            query = query.where(sa.tuple_(sessions.c.updated, sessions.c.key) < _place(cursor))
        query = query.order_by(sessions.c.updated.desc(), sessions.c.key.desc()).limit(limit + 1)

        def read(connection: Connection) -> list[Summary]:
            return [Summary(*row) for row in connection.execute(query)]

        if search:
            found = await self._database.search(owner, read)
        else:
            found = await self._database.read(read)
        if len(found) <= limit:
            return found, None
        last = found[limit - 1]
        return found[:limit], f"{last.updated!r}_{last.key}"

    def _has(self, text: sa.ColumnElement[str], searched: str) -> sa.ColumnElement[bool]:
        """Whether `text` has `searched` in it. LIKE would compare letter by letter, from each
        place in the text anew, and not be interrupted before the text's end."""
        find = sa.func.instr if self._database.is_sqlite else sa.func.strpos
        return find(sa.func.lower(text), sa.func.lower(searched)) > 0

    async def append(self, session: Session, model: str, turn: Merged, answer: Message) -> None:
        """Store a turn with its answer, which continues a last assistant message.

        Raises Conflict when the session has been changed or removed since it was loaded.
        """
        now, begun = time.time(), turn.begun
        answer = answer if begun is None else answer.continuing(begun)
        said = [message for message in turn.new if message is not begun]
        if turn.system is not None and turn.system.key is None:
            said.insert(0, turn.system)
        if answer.key is None:
            said.append(answer)

        def write(connection: Connection) -> None:
            left_out = session.left_out
            if session.stored is None:
                title = title_of(turn.new)
                rows.insert_whole(connection, session.ref, model, title, now, said, left_out)
                return
            key = rows.advance(connection, session.stored, model, now, left_out)
            rows.supersede_all_but(connection, key, turn.kept_keys())
            if answer.key is not None:
                rows.rewrite(connection, answer)
            rows.insert_messages(connection, key, said, now)
            rows.count(connection, key)

        await self._database.write(write)

    async def rewrite(self, message: Message) -> None:
        """Change a stored message."""
        await self._database.write(lambda connection: rows.rewrite(connection, message))

    async def rename(self, ref: SessionRef, title: str) -> None:
        """Give a session a title. Raises NotFound."""

        def write(connection: Connection) -> None:
            found = rows.existing(connection, ref)
            change = sessions.update().where(sessions.c.key == found.key)
            connection.execute(change.values(title=title))

        await self._database.write(write)

    async def check_exists(self, ref: SessionRef) -> None:
        """Raises NotFound."""
        await self._database.read(lambda connection: rows.existing(connection, ref))

    async def remove(self, ref: SessionRef) -> None:
        """Forget a session, its messages, and what is known of its states in any folder: their
        tokens are its text. Raises NotFound."""
        states = kv_files.c.owner == ref.owner, kv_files.c.session == ref.id

        def write(connection: Connection) -> None:
            found = rows.existing(connection, ref)
            connection.execute(sessions.delete().where(sessions.c.key == found.key))
            connection.execute(kv_files.delete().where(*states))

        await self._database.write(write)

    async def take_back(self, ref: SessionRef, at: int) -> None:
        """Supersede message `at` and all that follow it; a system message stays in force.

        Raises NotFound for the session, and for a message that is not in force.
        """

        def write(connection: Connection) -> None:
            loaded = rows.in_force(connection, ref)
            if loaded is None:
                raise rows.unknown(ref.id)
            found, said = loaded
            turns = [each.key or 0 for each in said if each.role != "system"]
            if at not in turns:
                raise NotFound(f"Session '{ref.id}' has no message {at} in force")
            kept = {key for key in turns if key < at}
            systems = {each.key or 0 for each in said if each.role == "system"}
            left_out = min(found.left_out, len(kept))
            key = rows.advance(connection, found, found.model, time.time(), left_out)
            rows.supersede_all_but(connection, key, kept | systems)
            rows.count(connection, key)

        await self._database.write(write)

    async def fork(self, ref: SessionRef, new_id: str, at: int | None) -> None:
        """Begin the same owner's session `new_id` with the messages up to `at`, or with all.

        Raises NotFound for the session or the message, and Conflict when `new_id` is taken.
        """
        found, listed = await self.listed(ref)
        if at is not None:
            ends = [n for n, s in enumerate(listed) if s.message.key == at and not s.superseded]
            if not ends:
                raise NotFound(f"Session '{ref.id}' has no message {at} in force")
            listed = listed[: ends[0] + 1]
        # The one that was in force then, which may have been replaced since.
        systems = [each.message for each in listed if each.message.role == "system"][-1:]
        turns = [s.message for s in listed if s.message.role != "system" and not s.superseded]
        new = SessionRef(ref.owner, new_id)
        await self.add(new, found.model, found.title, [*systems, *turns])

    async def add(self, ref: SessionRef, model: str, title: str, said: Sequence[Message]) -> None:
        """Store a whole conversation. Raises Conflict when the id is taken."""
        now = time.time()
        title = title or title_of(said)
        await self._database.write(
            lambda connection: rows.insert_whole(connection, ref, model, title, now, said)
        )

    async def surplus(
        self, before: float | None, most: int | None, most_bytes: int | None
    ) -> list[Summary]:
        """Sessions of all owners that are to go, the oldest first and not all at once.

        Those not changed since `before`, and those of one owner that are more than `most` or hold
        more than `most_bytes` together.
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
            ranked.c.place > most if most is not None else sa.false(),
            ranked.c.bytes > most_bytes if most_bytes is not None else sa.false(),
        ]
        columns = [ranked.c[column.name] for column in rows.SUMMARY]
        query = sa.select(*columns).where(sa.or_(*reasons)).order_by(ranked.c.updated)
        query = query.limit(_REMOVED_AT_ONCE)
        return await self._database.read(
            lambda connection: [Summary(*row) for row in connection.execute(query)]
        )


def title_of(said: Sequence[Message]) -> str:
    """The first words of what the user said first."""
    first = next((m.content for m in said if m.role == "user" and m.content.strip()), "")
    line = " ".join(first.split())
    return line if len(line) <= _TITLE_CHARS else line[: _TITLE_CHARS - 1].rstrip() + "…"


def _place(cursor: str) -> sa.Tuple:
    try:
        updated, key = cursor.split("_")
        place = float(updated), int(key)
    except ValueError:
        place = 0.0, -1
    if not 0 <= place[1] < 2**63 or not math.isfinite(place[0]):
        raise InvalidRequest("cursor must be the next_cursor of another page")
    return sa.tuple_(sa.literal(place[0]), sa.literal(place[1]))
