"""What is stored of conversations: read and written here, and nowhere else.

A turn is written in one transaction with its answer, so a later prompt never carries half of
one. Messages are never removed from a session: those that are no longer in force are marked.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from myllm.errors import Conflict, InvalidRequest, NotFound
from myllm.sessions.database import Database
from myllm.sessions.history import Merged, Message
from myllm.sessions.store import Session
from myllm.sessions.tables import kv_files, messages, sessions

_TITLE_CHARS: Final = 60
_REMOVED_AT_ONCE: Final = 100
# PostgreSQL stores no NUL. Nobody may post one, but a model may say it.
_NO_NUL: Final = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Summary:
    """A stored session without its messages; times are seconds since 1970, UTC.

    `messages` counts those in force, `left_out` those that the last prompt left out of them.
    """

    key: int
    owner: str
    id: str
    model: str
    title: str
    created: float
    updated: float
    messages: int
    left_out: int
    version: int


@dataclass(frozen=True)
class StoredMessage:
    """A message as it is listed; a superseded one is in no prompt any more."""

    message: Message
    superseded: bool
    created: float


_SUMMARY = tuple(sessions.c[name] for name in Summary.__annotations__)
_BY_NAME = (sessions.c.owner == sa.bindparam("o")) & (sessions.c.id == sa.bindparam("i"))
_FIND = sa.select(*_SUMMARY).where(_BY_NAME)
_FIELDS = ("role", "content", "partial", "tokens", "key", "extra")
_MESSAGE = tuple(messages.c[name] for name in _FIELDS)
_FIRST = len(_SUMMARY)
# One statement, so that a session and its messages are of one moment. A session without any
# gives one row, whose role is null.
_MINE = messages.c.session == sessions.c.key
_ALL = (
    sa.select(*_SUMMARY, *_MESSAGE, messages.c.superseded, messages.c.created)
    .select_from(sessions.outerjoin(messages, _MINE))
    .where(_BY_NAME)
    .order_by(messages.c.key)
)
_IN_FORCE = (
    sa.select(*_SUMMARY, *_MESSAGE)
    .select_from(sessions.outerjoin(messages, _MINE & messages.c.superseded.is_(False)))
    .where(_BY_NAME)
    .order_by(messages.c.key)
)

_NEW_SESSION, _NEW_MESSAGES = sessions.insert(), messages.insert()


class Archive:
    """The sessions in a database. An owner sees only what is the owner's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, owner: str, session_id: str) -> tuple[Summary, list[Message]] | None:
        """A session and its messages in force, the system message among them; None if unknown."""
        rows = await self._database.read(_rows_of(_IN_FORCE, owner, session_id))
        if not rows:
            return None
        return _summary(rows[0]), [_message(row) for row in rows if row[_FIRST] is not None]

    async def listed(self, owner: str, session_id: str) -> tuple[Summary, list[StoredMessage]]:
        """A session and all its messages, oldest first. Raises NotFound."""
        rows = await self._database.read(_rows_of(_ALL, owner, session_id))
        if not rows:
            raise _unknown(session_id)
        said = [row for row in rows if row[_FIRST] is not None]
        return _summary(rows[0]), [StoredMessage(_message(row), *row[-2:]) for row in said]

    async def page(
        self, owner: str, limit: int, cursor: str | None = None, search: str = "", model: str = ""
    ) -> tuple[list[Summary], str | None]:
        """At most `limit` sessions, the last changed first, and the cursor of the next page.

        `search` is a text in a title or a message, in upper or lower case. Raises
        InvalidRequest for a cursor that no page has given.
        """
        query = sa.select(*_SUMMARY).where(sessions.c.owner == owner)
        if model:
            query = query.where(sessions.c.model == model)
        if search:
            said = sa.select(messages.c.key).where(
                messages.c.session == sessions.c.key,
                messages.c.content.icontains(search, autoescape=True),
            )
            titled = sessions.c.title.icontains(search, autoescape=True)
            query = query.where(titled | said.exists())
        if cursor is not None:
            query = query.where(sa.tuple_(sessions.c.updated, sessions.c.key) < _place(cursor))
        query = query.order_by(sessions.c.updated.desc(), sessions.c.key.desc()).limit(limit + 1)
        ask = self._database.search if search else self._database.read
        found = await ask(lambda connection: [Summary(*row) for row in connection.execute(query)])
        if len(found) <= limit:
            return found, None
        last = found[limit - 1]
        return found[:limit], f"{last.updated!r}_{last.key}"

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
                title, owner = title_of(turn.new), session.owner
                _insert_whole(connection, owner, session.id, model, title, now, said, left_out)
                return
            key = _advance(connection, session.stored, model, now, left_out)
            _supersede_all_but(connection, key, turn.kept_keys())
            if answer.key is not None:
                _rewrite(connection, answer)
            _insert_messages(connection, key, said, now)
            _count(connection, key)

        await self._database.write(write)

    async def rewrite(self, message: Message) -> None:
        """Change a stored message."""
        await self._database.write(lambda connection: _rewrite(connection, message))

    async def rename(self, owner: str, session_id: str, title: str) -> None:
        """Give a session a title. Raises NotFound."""

        def write(connection: Connection) -> None:
            found = _existing(connection, owner, session_id)
            change = sessions.update().where(sessions.c.key == found.key)
            connection.execute(change.values(title=title))

        await self._database.write(write)

    async def check_exists(self, owner: str, session_id: str) -> None:
        """Raises NotFound."""
        await self._database.read(lambda connection: _existing(connection, owner, session_id))

    async def remove(self, owner: str, session_id: str) -> None:
        """Forget a session, its messages, and what is known of its states in any folder: their
        tokens are its text. Raises NotFound."""
        states = kv_files.c.owner == owner, kv_files.c.session == session_id

        def write(connection: Connection) -> None:
            found = _existing(connection, owner, session_id)
            connection.execute(sessions.delete().where(sessions.c.key == found.key))
            connection.execute(kv_files.delete().where(*states))

        await self._database.write(write)

    async def fork(self, owner: str, session_id: str, new_id: str, at: int | None) -> None:
        """Begin a session with what `session_id` says up to message `at`, or to its end.

        Raises NotFound for the session or the message, and Conflict when `new_id` is taken.
        """
        found, listed = await self.listed(owner, session_id)
        if at is not None:
            ends = [n for n, s in enumerate(listed) if s.message.key == at and not s.superseded]
            if not ends:
                raise NotFound(f"Session '{session_id}' has no message {at} in force")
            listed = listed[: ends[0] + 1]
        # The one that was in force then, which may have been replaced since.
        systems = [each.message for each in listed if each.message.role == "system"][-1:]
        turns = [s.message for s in listed if s.message.role != "system" and not s.superseded]
        await self.add(owner, new_id, found.model, found.title, [*systems, *turns])

    async def add(
        self, owner: str, session_id: str, model: str, title: str, said: Sequence[Message]
    ) -> None:
        """Store a whole conversation. Raises Conflict when the id is taken."""
        now = time.time()
        title = title or title_of(said)
        await self._database.write(
            lambda connection: _insert_whole(connection, owner, session_id, model, title, now, said)
        )

    async def surplus(
        self, before: float | None, most: int | None, most_bytes: int | None
    ) -> list[Summary]:
        """Sessions of all owners that are to go, the oldest first and not all at once.

        Those not changed since `before`, and those that are more than `most` or hold more than
        `most_bytes` together.
        """
        newest = sessions.c.updated.desc(), sessions.c.key.desc()
        ranked = sa.select(
            *_SUMMARY,
            sa.func.row_number().over(order_by=newest).label("place"),
            sa.func.sum(sessions.c.size_bytes).over(order_by=newest).label("bytes"),
        ).subquery()
        reasons = [
            ranked.c.updated < before if before is not None else sa.false(),
            ranked.c.place > most if most is not None else sa.false(),
            ranked.c.bytes > most_bytes if most_bytes is not None else sa.false(),
        ]
        columns = [ranked.c[column.name] for column in _SUMMARY]
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


def _unknown(session_id: str) -> NotFound:
    return NotFound(f"Session '{session_id}' not found")


def _place(cursor: str) -> sa.Tuple:
    try:
        updated, key = cursor.split("_")
        place = float(updated), int(key)
    except ValueError:
        place = 0.0, -1
    if not 0 <= place[1] < 2**63 or not math.isfinite(place[0]):
        raise InvalidRequest("cursor must be the next_cursor of another page")
    return sa.tuple_(sa.literal(place[0]), sa.literal(place[1]))


def _summary(row: Any) -> Summary:
    return Summary(*row[:_FIRST])


def _message(row: Any) -> Message:
    return Message(*row[_FIRST : _FIRST + len(_MESSAGE)])


def _rows_of(
    query: sa.Select[Any], owner: str, session_id: str
) -> Callable[[Connection], Sequence[Any]]:
    return lambda connection: connection.execute(query, {"o": owner, "i": session_id}).all()


def _find(connection: Connection, owner: str, session_id: str) -> Summary | None:
    row = connection.execute(_FIND, {"o": owner, "i": session_id}).first()
    return None if row is None else Summary(*row)


def _existing(connection: Connection, owner: str, session_id: str) -> Summary:
    found = _find(connection, owner, session_id)
    if found is None:
        raise _unknown(session_id)
    return found


def _insert_whole(
    connection: Connection,
    owner: str,
    session_id: str,
    model: str,
    title: str,
    now: float,
    said: Sequence[Message],
    left_out: int = 0,
) -> None:
    """A new session with its messages. Raises Conflict when the id is taken."""
    row = {
        "owner": owner,
        "id": session_id,
        "model": model,
        "title": title,
        "created": now,
        "updated": now,
        "messages": len(said),
        "left_out": left_out,
        "size_bytes": sum(map(_bytes_of, said)),
        "version": 1,
    }
    try:
        key = connection.execute(_NEW_SESSION, row).inserted_primary_key
    except IntegrityError as failure:
        raise Conflict(f"Session '{session_id}' exists already") from failure
    assert key is not None
    _insert_messages(connection, int(key[0]), said, now)


def _content(message: Message) -> str:
    """Its text, as it can be stored."""
    return message.content.replace("\0", _NO_NUL)


def _bytes_of(message: Message) -> int:
    """What `_count` will count for it: its text in UTF-8, and the rest as it is stored."""
    more = "" if message.extra is None else json.dumps(message.extra)
    return len(_content(message).encode()) + len(more)


def _advance(connection: Connection, before: Summary, model: str, now: float, left_out: int) -> int:
    """The session changes, if it is still as it was."""
    unchanged = (sessions.c.key == before.key) & (sessions.c.version == before.version)
    change = sessions.update().where(unchanged)
    done = connection.execute(
        change.values(model=model, updated=now, left_out=left_out, version=before.version + 1)
    )
    if done.rowcount != 1:
        raise Conflict(f"Session '{before.id}' was changed or removed while it was answered")
    return before.key


def _supersede_all_but(connection: Connection, session: int, kept: set[int]) -> None:
    current = messages.c.session == session, messages.c.superseded.is_(False)
    keys = set(connection.scalars(sa.select(messages.c.key).where(*current)))
    if gone := keys - kept:
        change = messages.update().where(messages.c.key.in_(gone))
        connection.execute(change.values(superseded=True))


def _rewrite(connection: Connection, message: Message) -> None:
    """A stored answer has been changed."""
    change = messages.update().where(messages.c.key == message.key)
    connection.execute(
        change.values(
            content=_content(message),
            tokens=message.tokens,
            partial=message.partial,
            extra=message.extra,
        )
    )


def _insert_messages(
    connection: Connection, session: int, said: Sequence[Message], now: float
) -> None:
    if not said:
        return
    rows = [
        {
            "session": session,
            "role": message.role,
            "content": _content(message),
            "tokens": message.tokens,
            "extra": message.extra,
            "partial": message.partial,
            "superseded": False,
            "created": now,
        }
        for message in said
    ]
    connection.execute(_NEW_MESSAGES, rows)


def _count(connection: Connection, session: int) -> None:
    """Note how much a session holds now."""
    connection.execute(_counted(connection.dialect.name), {"s": session})


@cache
def _counted(dialect: str) -> sa.Update:
    """Made once, because making it takes longer than running it."""

    def size_of(text: sa.ColumnElement[str]) -> sa.ColumnElement[int]:
        """Bytes in UTF-8; older SQLites have no octet_length."""
        if dialect == "sqlite":
            return sa.func.length(sa.cast(text, sa.LargeBinary))
        return sa.func.octet_length(text)

    more = sa.func.coalesce(size_of(sa.cast(messages.c.extra, sa.Text)), 0)
    size = sa.func.coalesce(sa.func.sum(size_of(messages.c.content) + more), 0)
    in_force = sa.func.count().filter(messages.c.superseded.is_(False))
    of_session = messages.c.session == sa.bindparam("s")
    counts = [sa.select(each).where(of_session).scalar_subquery() for each in (in_force, size)]
    change = sessions.update().where(sessions.c.key == sa.bindparam("s"))
    return change.values(messages=counts[0], size_bytes=counts[1])
