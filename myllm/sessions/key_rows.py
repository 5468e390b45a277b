"""Functions that read and write the rows of API keys on a connection.

Every transaction that changes a key begins with the change counter. On PostgreSQL, that lets them
run one after the other, so that none overlooks another's row.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from myllm.errors import Conflict, NotFound
from myllm.sessions.tables import key_changes, keys

T = TypeVar("T")
MOST: Final = 100_000
"""As many keys as a store can have."""

_NAMES: Final = tuple(column.name for column in keys.c)
_BY_NAME = keys.c.name == sa.bindparam("n")
_FIND = sa.select(keys).where(_BY_NAME)
_NEXT = sa.select(keys).where(keys.c.name > sa.bindparam("n")).order_by(keys.c.name)
_NUMBER = sa.select(key_changes.c.number)
_COUNT_UP = sa.text(
    "INSERT INTO key_changes (id, number) VALUES (1, 1) "
    "ON CONFLICT (id) DO UPDATE SET number = key_changes.number + 1"
)
_USED = (
    keys.update()
    .where(_BY_NAME, sa.func.coalesce(keys.c.last_used, 0) < sa.bindparam("at"))
    .values(last_used=sa.bindparam("at"))
)


Row = dict[str, Any]
"""The values of a key's columns, by the names of the fields of `keys.Key`."""


def page(connection: Connection, after: str, limit: int) -> list[Row]:
    """Return the next keys behind the name `after`, in the order of names, at most `limit`."""
    return [_row(values) for values in connection.execute(_NEXT.limit(limit), {"n": after})]


def existing(connection: Connection, name: str) -> Row:
    """Return the key of this name. Raises NotFound."""
    values = connection.execute(_FIND, {"n": name}).first()
    if values is None:
        raise NotFound(f"There is no key '{name}'")
    return _row(values)


def change_number(connection: Connection) -> int:
    return int(connection.scalar(_NUMBER) or 0)


def add(connection: Connection, key: Mapping[str, Any]) -> None:
    """Store a new key. Raises Conflict when its name or hash is taken, or there are too many."""
    connection.execute(_COUNT_UP)
    name = key["name"]
    if connection.execute(_FIND, {"n": name}).first() is not None:
        raise Conflict(f"There is a key '{name}' already; revoke it first, or rotate it")
    same = sa.select(keys.c.name).where(keys.c.sha256 == key["sha256"])
    if (other := connection.scalar(same)) is not None:
        raise Conflict(f"The key of '{name}' is the same as that of '{other}'")
    if (connection.scalar(sa.select(sa.func.count()).select_from(keys)) or 0) >= MOST:
        raise Conflict(f"There are {MOST} keys already; revoke those that are not used")
    connection.execute(keys.insert(), key)


def change(connection: Connection, name: str, changes: Mapping[str, Any]) -> Row:
    """Change columns of a key, and return the key as it is now. Raises NotFound."""
    connection.execute(_COUNT_UP)
    before = existing(connection, name)
    if changes:
        connection.execute(keys.update().where(keys.c.name == name).values(**changes))
        return existing(connection, name)
    return before


def remove(connection: Connection, name: str) -> None:
    """Remove a key. Raises NotFound."""
    connection.execute(_COUNT_UP)
    existing(connection, name)
    connection.execute(keys.delete().where(keys.c.name == name))


def keeping_an_admin(change: Callable[[Connection], T]) -> Callable[[Connection], T]:
    """Return `change`, which then raises Conflict if afterwards the last admin key stops working
    sooner than it would have before. Without any key, it must make an admin key without an expiry.
    """

    def checked(connection: Connection) -> T:
        connection.execute(_COUNT_UP)
        is_first = _is_empty(connection)
        before = math.inf if is_first else _admins_until(connection)
        changed = change(connection)
        after = _admins_until(connection)
        if after < before and before > time.time():
            if is_first:
                fault = "The first key must be an admin's that never expires"
            elif after <= time.time():
                fault = "This is the last admin key that works"
            else:
                fault = "No other admin key works as long as this one"
            raise Conflict(
                f"{fault}: without an admin key no client can manage the server; create another "
                "key with the role admin first, set MYLLM_ADMIN_KEY, or force it (--force, "
                "?force=true)"
            )
        return changed

    return checked


def note_used(connection: Connection, used: Mapping[str, float]) -> None:
    """Store when each key was used last, unless a later time is stored; skip removed keys."""
    if used:
        connection.execute(_USED, [{"n": name, "at": at} for name, at in sorted(used.items())])


def _is_empty(connection: Connection) -> bool:
    return connection.scalar(sa.select(keys.c.name).limit(1)) is None


def _admins_until(connection: Connection) -> float:
    """Return until when an admin key works; 0 if there is none."""
    lasts = sa.func.coalesce(keys.c.expires, math.inf)
    admins = sa.select(sa.func.max(lasts)).where(keys.c.role == "admin", ~keys.c.disabled)
    return connection.scalar(admins) or 0.0


def _row(values: Any) -> Row:
    row = dict(zip(_NAMES, values, strict=True))
    row["models"] = tuple(row["models"])
    row["sha256"] = bytes(row["sha256"])
    return row
