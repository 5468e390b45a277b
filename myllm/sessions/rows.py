"""Functions that read and write the rows of a session and its messages on a connection."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from myllm.errors import Conflict, NotFound
from myllm.sessions.history import Message
from myllm.sessions.session import SessionRef, StoredMessage, Summary
from myllm.sessions.tables import messages, sessions

# PostgreSQL stores no NUL. Requests must not contain one, but a model may generate it.
_NO_NUL: Final = "\N{REPLACEMENT CHARACTER}"


SUMMARY = tuple(sessions.c[name] for name in Summary.__annotations__)
_BY_NAME = (sessions.c.owner == sa.bindparam("o")) & (sessions.c.id == sa.bindparam("i"))
_FIND = sa.select(*SUMMARY).where(_BY_NAME)
_FIELDS = ("role", "content", "partial", "tokens", "key", "extra")
_MESSAGE = tuple(messages.c[name] for name in _FIELDS)
_FIRST = len(SUMMARY)
# One statement reads a session and its messages, so that both are of the same moment. A session
# without messages gives one row, whose role is null.
_MINE = messages.c.session == sessions.c.key
_ALL = (
    sa.select(*SUMMARY, *_MESSAGE, messages.c.superseded, messages.c.created)
    .select_from(sessions.outerjoin(messages, _MINE))
    .where(_BY_NAME)
    .order_by(messages.c.key)
)
_IN_FORCE = (
    sa.select(*SUMMARY, *_MESSAGE)
    .select_from(sessions.outerjoin(messages, _MINE & messages.c.superseded.is_(False)))
    .where(_BY_NAME)
    .order_by(messages.c.key)
)

_NEW_SESSION, _NEW_MESSAGES = sessions.insert(), messages.insert()


def unknown(session_id: str) -> NotFound:
    """Return the error for a session that does not exist."""
    return NotFound(f"Session '{session_id}' not found")


def _named(ref: SessionRef) -> dict[str, str]:
    return {"o": ref.owner, "i": ref.id}


def _summary(row: Any) -> Summary:
    return Summary(*row[:_FIRST])


def _message(row: Any) -> Message:
    return Message(*row[_FIRST : _FIRST + len(_MESSAGE)])


def in_force(connection: Connection, ref: SessionRef) -> tuple[Summary, list[Message]] | None:
    """Return a session and its messages in force, or None if it is unknown."""
    found = connection.execute(_IN_FORCE, _named(ref)).all()
    if not found:
        return None
    return _summary(found[0]), [_message(row) for row in found if row[_FIRST] is not None]


def newest(
    connection: Connection,
    ref: SessionRef,
    condition: sa.ColumnElement[bool],
    is_wanted: Callable[[Message], bool],
) -> Message | None:
    """Return the newest message in force that meets `condition` and is wanted, or None.

    The newest ones are looked at first, since what clients continue is mostly among them.
    """
    session = sa.select(sessions.c.key).where(_BY_NAME).scalar_subquery()
    query = sa.select(*_MESSAGE).where(messages.c.session == session, condition)
    query = query.where(messages.c.superseded.is_(False)).order_by(messages.c.key.desc())
    with connection.execute(query, _named(ref)) as found:
        return next(filter(is_wanted, (Message(*row) for row in found)), None)


def all_of(connection: Connection, ref: SessionRef) -> tuple[Summary, list[StoredMessage]]:
    """Return a session and all its messages, oldest first. Raises NotFound."""
    found: Sequence[Any] = connection.execute(_ALL, _named(ref)).all()
    if not found:
        raise unknown(ref.id)
    with_message = [row for row in found if row[_FIRST] is not None]
    return _summary(found[0]), [StoredMessage(_message(row), *row[-2:]) for row in with_message]


def existing(connection: Connection, ref: SessionRef) -> Summary:
    """Return a session without its messages. Raises NotFound."""
    row = connection.execute(_FIND, _named(ref)).first()
    if row is None:
        raise unknown(ref.id)
    return Summary(*row)


def insert_whole(
    connection: Connection,
    ref: SessionRef,
    model: str,
    title: str,
    now: float,
    history: Sequence[Message],
    left_out: int = 0,
) -> None:
    """Insert a new session with its messages. Raises Conflict when the id is taken."""
    row = {
        "owner": ref.owner,
        "id": ref.id,
        "model": model,
        "title": title,
        "created": now,
        "updated": now,
        "messages": len(history),
        "left_out": left_out,
        "size_bytes": sum(map(_bytes_of, history)),
        "version": 1,
    }
    try:
        key = connection.execute(_NEW_SESSION, row).inserted_primary_key
    except IntegrityError as failure:
        raise Conflict(f"Session '{ref.id}' exists already") from failure
    assert key is not None
    insert_messages(connection, int(key[0]), history, now)


def _content(message: Message) -> str:
    """Return the text of a message in the form in which it is stored."""
    return message.content.replace("\0", _NO_NUL)


def _bytes_of(message: Message) -> int:
    """Return the bytes that `count` will count: its text in UTF-8, and its extra as JSON."""
    more = "" if message.extra is None else json.dumps(message.extra)
    return len(_content(message).encode()) + len(more)


def advance(connection: Connection, before: Summary, model: str, now: float, left_out: int) -> int:
    """Bump the session's version; raise Conflict if it changed meanwhile. Return its key."""
    unchanged = (sessions.c.key == before.key) & (sessions.c.version == before.version)
    change = sessions.update().where(unchanged)
    done = connection.execute(
        change.values(model=model, updated=now, left_out=left_out, version=before.version + 1)
    )
    if done.rowcount != 1:
        raise Conflict(f"Session '{before.id}' was changed or removed while it was answered")
    return before.key


def supersede_all_but(connection: Connection, session: int, kept: set[int]) -> None:
    """Mark all messages of a session as superseded, except those with the keys `kept`."""
    current = messages.c.session == session, messages.c.superseded.is_(False)
    keys = set(connection.scalars(sa.select(messages.c.key).where(*current)))
    if gone := keys - kept:
        change = messages.update().where(messages.c.key.in_(gone))
        connection.execute(change.values(superseded=True))


def rewrite(connection: Connection, message: Message) -> None:
    """Replace the stored message that has the key of `message`."""
    change = messages.update().where(messages.c.key == message.key)
    connection.execute(
        change.values(
            content=_content(message),
            tokens=message.tokens,
            partial=message.partial,
            extra=message.extra,
        )
    )


def insert_messages(
    connection: Connection, session: int, new: Sequence[Message], now: float
) -> None:
    """Insert new messages of a session."""
    if not new:
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
        for message in new
    ]
    connection.execute(_NEW_MESSAGES, rows)


def count(connection: Connection, session: int) -> None:
    """Update how many messages in force and how many bytes a session holds."""
    connection.execute(_counted(connection.dialect.name), {"s": session})


@cache
def _counted(dialect: str) -> sa.Update:
    """Return the statement; it is cached, because building it takes longer than running it."""

    def size_of(text: sa.ColumnElement[str]) -> sa.ColumnElement[int]:
        """Return the length in bytes of UTF-8; older versions of SQLite have no octet_length."""
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
