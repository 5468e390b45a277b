"""Functions that read and write the rows of usage on a connection."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from myllm.sessions.tables import usage
from myllm.sessions.usage_counts import COUNTED, DAY_S, Counts, Group, Place, UsageQuery

_FORGET_S: Final = 7 * DAY_S
_COLUMNS: Final = (*Place._fields, *COUNTED)
_ADD = sa.text(
    f"INSERT INTO usage ({', '.join(_COLUMNS)}) "
    f"VALUES ({', '.join(f':{name}' for name in _COLUMNS)}) "
    "ON CONFLICT (hour, key, model) DO UPDATE SET "
    + ", ".join(f"{name} = usage.{name} + excluded.{name}" for name in COUNTED)
)
_BEGIN = sa.text(
    "INSERT INTO usage_writes (writer, number, written) VALUES (:writer, :number, :now) "
    "ON CONFLICT (writer) DO UPDATE SET number = excluded.number, written = excluded.written "
    "WHERE usage_writes.number < excluded.number"
)
_FORGET = sa.text("DELETE FROM usage_writes WHERE written < :before")


def add(connection: Connection, writer: str, number: int, counts: Mapping[Place, Counts]) -> None:
    """Add `counts`, unless write `number` of `writer` has been stored already."""
    now = time.time()
    begun = connection.execute(_BEGIN, {"writer": writer, "number": number, "now": now})
    if begun.rowcount == 0:
        return
    if number == 1:
        connection.execute(_FORGET, {"before": now - _FORGET_S})
    # In order, or two servers that add to the same rows could wait for each other for ever.
    rows = [
        {**place._asdict(), **{name: getattr(counted, name) for name in COUNTED}}
        for place, counted in sorted(counts.items(), key=lambda entry: entry[0])
    ]
    connection.execute(_ADD, rows)


def sums(
    connection: Connection, query: UsageQuery, after: Group | None, limit: int
) -> dict[Group, Counts]:
    """Return the next sums that `query` wants, behind the group `after`, at most `limit`."""
    hour = usage.c.hour
    group = hour - hour % DAY_S if query.by == "day" else usage.c[query.by]
    added = (sa.func.sum(usage.c[name]) for name in COUNTED)
    wanted = sa.select(group, *added).where(hour >= query.since, hour < query.until)
    if after is not None:
        wanted = wanted.where(group > after)
    for column, name in ((usage.c.key, query.key), (usage.c.model, query.model)):
        if name is not None:
            wanted = wanted.where(column == name)
    # PostgreSQL adds integers up to decimals.
    kinds = [type(getattr(Counts(), name)) for name in COUNTED]
    return {
        of: Counts(*(kind(value) for kind, value in zip(kinds, values, strict=True)))
        for of, *values in connection.execute(wanted.group_by(group).order_by(group).limit(limit))
    }
