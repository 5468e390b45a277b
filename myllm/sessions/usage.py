"""The store of what each key used of each model, hour by hour.

Servers may share the store, so each adds to its rows. The functions that need SQLAlchemy are in
`usage_rows.py`, which is loaded when the database is open.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from myllm.sessions.usage_counts import Counts, Group, Place, UsageQuery

if TYPE_CHECKING:  # loading SQLAlchemy takes a while
    from sqlalchemy.engine import Connection

    from myllm.sessions.database import Database

_PAGE: Final = 500
"""As many sums take the event loop a few milliseconds, if the database is PostgreSQL."""


class UsageStore:
    """The counts in the store, whose `database` may still be opening.

    The methods raise StoreFailed and Unavailable when the database cannot be used.
    """

    def __init__(self, database: Callable[[], Awaitable[Database]]) -> None:
        self._database = database

    async def add(self, writer: str, number: int, counts: Mapping[Place, Counts]) -> None:
        """Add `counts` to those that are stored, unless that has happened already.

        It is the write `number` of `writer`; numbers ascend. So a writer that does not know whether
        a write has been stored can repeat it.
        """
        database = await self._database()
        from myllm.sessions import usage_rows

        def add(connection: Connection) -> None:
            usage_rows.add(connection, writer, number, counts)

        await database.write(add)

    async def sums(self, query: UsageQuery) -> dict[Group, Counts]:
        """Return the sums that `query` wants."""
        database = await self._database()
        from myllm.sessions import usage_rows

        sums: dict[Group, Counts] = {}
        page, last = sums, None
        while last is None or len(page) == _PAGE:
            read = partial(usage_rows.sums, query=query, after=last, limit=_PAGE)
            page = await database.read(read)
            sums |= page
            last = next(reversed(page), "")
        return sums
