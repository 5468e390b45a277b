"""How the database is reached: SQLite's connections live in threads of their own, PostgreSQL's on
the event loop.

SQLite's statements take microseconds, and to change threads for each would cost more than all of
them. So what is done with a connection is a function of it, run in one go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, Connection

T = TypeVar("T")
BUSY_S = 5.0
_CONNECT_S = 10.0
# Anything that takes longer is a disk or a network that is gone.
_ANSWER_S = 60.0


class Connections(Protocol):
    """Connections to one database. Raises what drivers raise, and TimeoutError."""

    async def read(self, work: Callable[[Connection], T]) -> T:
        """What `work` makes of a connection."""
        ...

    async def write(self, work: Callable[[Connection], T]) -> T:
        """The same in a transaction, which is undone when `work` raises."""
        ...

    async def close(self) -> None: ...


class SqliteThreads:
    """At most `size` connections, each used by one thread at a time.

    SQLite has one writer at a time: with a `size` of 1, writes wait for each other here.
    """

    def __init__(self, url: URL, size: int) -> None:
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="sqlite")
        self._engine = create_engine(
            url.set(drivername="sqlite"),
            pool_size=size,
            max_overflow=0,
            # What is written is committed or undone here; to read, there is no transaction.
            pool_reset_on_return=None,
            connect_args={"timeout": BUSY_S, "isolation_level": None, "check_same_thread": False},
        )
        event.listen(self._engine, "connect", _set_up)

    async def read(self, work: Callable[[Connection], T]) -> T:
        def run() -> T:
            with self._engine.connect() as connection:
                return work(connection)

        return await self._run(run)

    async def write(self, work: Callable[[Connection], T]) -> T:
        def run() -> T:
            with self._engine.connect() as connection, connection.begin():
                # By itself the driver begins when it likes, and a read that turns into a write
                # can then fail at once instead of waiting for its turn.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                return work(connection)

        return await self._run(run)

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)
        self._engine.dispose()

    async def _run(self, work: Callable[[], T]) -> T:
        running = asyncio.get_running_loop().run_in_executor(self._threads, work)
        async with asyncio.timeout(_ANSWER_S):
            return await running


class PostgresPool:
    """At most `size` connections, and `overflow` more for a moment."""

    def __init__(self, url: URL, size: int, overflow: int) -> None:
        from sqlalchemy.ext.asyncio import create_async_engine  # loads a driver; SQLite needs none

        self._engine = create_async_engine(
            _for_asyncpg(url),
            pool_size=size,
            max_overflow=overflow,
            pool_timeout=BUSY_S,
            pool_pre_ping=True,
            connect_args={"timeout": _CONNECT_S, "command_timeout": _ANSWER_S},
        )

    async def read(self, work: Callable[[Connection], T]) -> T:
        async with self._engine.connect() as connection:
            return await connection.run_sync(work)

    async def write(self, work: Callable[[Connection], T]) -> T:
        async with self._engine.begin() as connection:
            return await connection.run_sync(work)

    async def close(self) -> None:
        await self._engine.dispose()


def _for_asyncpg(url: URL) -> URL:
    """`url` for a driver that has another name for one of libpq's options."""
    query = {("ssl" if key == "sslmode" else key): value for key, value in url.query.items()}
    return url.set(drivername="postgresql+asyncpg", query=query)


def _set_up(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # an answered turn outlives a power cut
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()
