"""The database of conversations: a SQLite file, or PostgreSQL by its URL.

SQLite has one writer at a time, so writes wait for each other here, with a bound, instead of
failing there. This is the one place where the drivers' errors become ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
from filelock import AsyncFileLock
from sqlalchemy import event, exc, inspect, make_url, text
from sqlalchemy.engine import URL, Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from myllm.errors import InvalidRequest, MyLLMError, StoreFailed, Unavailable
from myllm.sessions import schema

_log = structlog.get_logger(__name__)
_READERS = 2
_BUSY_S = 5.0
_CONNECT_S = 10.0
# Two servers that start at once: the second one finds the schema changed already.
_MIGRATION_LOCK = 7_135_001


class Database:
    """Connections to one database. Every wait for one is bounded.

    A failure inside `reading` or `writing` comes out as StoreFailed, or as Unavailable when
    trying again can help.
    """

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self.is_sqlite = self._url.get_backend_name() == "sqlite"
        self._turn = asyncio.Lock()
        if self.is_sqlite:
            self._writer, self._reader = self._sqlite(1, writes=True), self._sqlite(_READERS)
            self._searcher = self._sqlite(1)
        else:
            self._writer = self._reader = self._postgres(_READERS, overflow=2)
            self._searcher = self._postgres(1, overflow=0)

    @property
    def where(self) -> str:
        """What people call it; without a password."""
        return self._url.render_as_string() if not self.is_sqlite else str(self._url.database)

    async def prepare(self) -> None:
        """Bring the schema up to this program's; needed before anything else.

        Raises StoreFailed when it is newer, or cannot be reached.
        """
        if self.is_sqlite:
            await self._prepare_sqlite(Path(self._url.database or ""))
            return
        try:
            async with self.writing() as connection:
                await connection.execute(
                    text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK}
                )
                await connection.run_sync(self._upgrade_if_needed)
        except TypeError as failure:  # how the driver refuses an option
            raise StoreFailed(f"MYLLM_DATABASE_URL cannot be used: {failure}") from failure

    async def close(self) -> None:
        """Close every connection."""
        await self._writer.dispose()
        await self._reader.dispose()
        await self._searcher.dispose()

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[AsyncConnection, None]:
        """A connection to read with; each statement sees the database as of one moment."""
        async with _translated(self.where), self._reader.connect() as connection:
            yield connection

    @asynccontextmanager
    async def searching(self) -> AsyncGenerator[AsyncConnection, None]:
        """The one connection to read with for what may take seconds; chats do not wait for it."""
        async with _translated(self.where), self._searcher.connect() as connection:
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[AsyncConnection, None]:
        """A connection in a transaction: left without an exception, all of it is stored."""
        async with _translated(self.where):
            if not self.is_sqlite:
                async with self._writer.begin() as connection:
                    yield connection
                return
            async with self._turn, self._writer.begin() as connection:
                yield connection

    def _postgres(self, size: int, overflow: int) -> AsyncEngine:
        return create_async_engine(
            _for_asyncpg(self._url),
            pool_size=size,
            max_overflow=overflow,
            pool_timeout=_BUSY_S,
            pool_pre_ping=True,
            connect_args={"timeout": _CONNECT_S, "command_timeout": 60},
        )

    def _sqlite(self, size: int, writes: bool = False) -> AsyncEngine:
        engine = create_async_engine(
            self._url.set(drivername="sqlite+aiosqlite"),
            pool_size=size,
            max_overflow=0,
            pool_timeout=2 * _BUSY_S,
            # Without a transaction there is nothing to roll back.
            pool_reset_on_return="rollback" if writes else None,
            connect_args={"timeout": _BUSY_S, "isolation_level": None},
        )
        event.listen(engine.sync_engine, "connect", _set_up_sqlite)
        if writes:
            event.listen(engine.sync_engine, "begin", _begin_to_write)
        return engine

    async def _prepare_sqlite(self, path: Path) -> None:
        try:
            schema.make_private(path)
            if schema.sqlite_revision(path) == schema.HEAD:
                return
            async with AsyncFileLock(f"{path}.lock", timeout=60):
                revision = schema.sqlite_revision(path)
                schema.check_known(revision, str(path))
                if revision not in (None, schema.HEAD):
                    copy = schema.back_up_sqlite(path, str(revision))
                    _log.info("store copied before its schema changes", copy=str(copy))
                async with self.writing() as connection:
                    await connection.run_sync(self._upgrade_if_needed)
        except OSError as failure:
            raise StoreFailed(
                f"the store of conversations {path} cannot be made: {failure.strerror or failure}"
            ) from failure

    def _upgrade_if_needed(self, connection: Connection) -> None:
        revision = None
        if inspect(connection).has_table("alembic_version"):
            revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
        schema.check_known(revision, self.where)
        if revision != schema.HEAD:
            (schema.create if revision is None else schema.upgrade)(connection)
            _log.info("schema of the store changed", before=revision, now=schema.HEAD)


def _for_asyncpg(url: URL) -> URL:
    """`url` for a driver that has another name for one of libpq's options."""
    query = {("ssl" if key == "sslmode" else key): value for key, value in url.query.items()}
    return url.set(drivername="postgresql+asyncpg", query=query)


def _set_up_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # an answered turn outlives a power cut
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_to_write(connection: Connection) -> None:
    """By itself the driver begins when it likes, and a read that turns into a write can then fail
    at once instead of waiting for its turn."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


@asynccontextmanager
async def _translated(where: str) -> AsyncGenerator[None, None]:
    try:
        yield
    except (exc.SQLAlchemyError, OSError, TimeoutError) as failure:
        raise _ours(where, failure) from failure


def _ours(where: str, failure: Exception) -> MyLLMError:
    cause = str(getattr(failure, "orig", None) or failure) or type(failure).__name__
    if "\\u0000" in cause or "0x00" in cause:
        return InvalidRequest("A text must not have the character U+0000")
    if "locked" in cause:
        return Unavailable(f"The store of conversations {where} is locked by another program")
    if isinstance(failure, (OSError, exc.TimeoutError, exc.InterfaceError)):
        return Unavailable(f"The store of conversations {where} cannot be reached: {cause}")
    if "readonly" in cause:
        cause = "it is read-only; give the server's user the right to write it and its folder"
    elif "disk I/O" in cause:
        cause = f"{cause}; is the disk full? What was stored before is safe"
    elif "full" in cause:
        cause = "the disk is full; what was stored before is safe"
    elif "malformed" in cause or "not a database" in cause:
        cause = f"{cause}; stop the server and put a copy in its place, or move it away"
    return StoreFailed(f"The store of conversations {where} failed: {cause}")
