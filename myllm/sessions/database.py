"""The database of conversations: a SQLite file, or PostgreSQL by its URL.

Only this module translates the drivers' errors into ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from weakref import WeakValueDictionary

import structlog
from filelock import AsyncFileLock
from sqlalchemy import exc, inspect, make_url, text
from sqlalchemy.engine import Connection

from myllm.errors import InvalidRequest, MyLLMError, StoreFailed, Unavailable
from myllm.sessions import schema
from myllm.sessions.connections import PostgresPool, Readers, SqliteReaders, SqliteWriter, T, Writer

_log = structlog.get_logger(__name__)
_READERS = _SEARCHERS = 2
SEARCH_S = 5.0
_TURN_S = 30.0
# Of two servers that start at once, the second finds the schema upgraded already.
_MIGRATION_LOCK = 7_135_001
_REVISION = "SELECT version_num FROM alembic_version"


class Database:
    """Connections to one database. Every wait for one is bounded.

    The work on a connection is a function of the connection. A failure of the database is raised as
    StoreFailed, or as Unavailable when trying again can help.
    """

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self.is_sqlite = self._url.get_backend_name() == "sqlite"
        self._writer: Writer
        self._reader: Readers
        self._searcher: Readers
        if self.is_sqlite:
            self._writer = SqliteWriter(self._url)
            self._reader = SqliteReaders(self._url, _READERS)
            self._searcher = SqliteReaders(self._url, _SEARCHERS, SEARCH_S)
        else:
            self._writer = self._reader = PostgresPool(self._url, _READERS, overflow=2)
            self._searcher = PostgresPool(self._url, _SEARCHERS, overflow=0, answer_s=SEARCH_S)
        self._turns = asyncio.Semaphore(_SEARCHERS)
        self._searching: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def where(self) -> str:
        """The name of the database for people, without a password."""
        return self._url.render_as_string() if not self.is_sqlite else str(self._url.database)

    async def prepare(self) -> None:
        """Upgrade the schema to this program's; must be called before anything else.

        Raises StoreFailed when the schema is newer, or the database cannot be reached.
        """
        if self.is_sqlite:
            await self._prepare_sqlite(Path(self._url.database or ""))
            return

        def upgrade(connection: Connection) -> None:
            key = {"key": _MIGRATION_LOCK}
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), key)
            self._upgrade_if_needed(connection)

        try:
            await self.write(upgrade)
        except TypeError as failure:  # the driver refuses an option in this way
            raise StoreFailed(f"MYLLM_DATABASE_URL cannot be used: {failure}") from failure

    async def check(self) -> None:
        """Read one row. Raises StoreFailed or Unavailable when that fails."""
        await self.read(lambda connection: connection.scalar(text(_REVISION)))

    async def close(self) -> None:
        """Close all connections."""
        await self._writer.close()
        await self._reader.close()
        await self._searcher.close()

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` returns; each of its statements sees the database of one moment."""
        async with _translated(self.where):
            return await self._reader.read(work)

    async def search(self, owner: str, work: Callable[[Connection], T]) -> T:
        """Return what `work` returns, on connections for work that may take seconds.

        Chats do not wait for these connections. Each owner can run one search at a time. Raises
        Unavailable when a search takes longer than SEARCH_S, or waits too long for others.
        """
        async with self._turn_to_search(owner), _translated(self.where):
            try:
                return await self._searcher.read(work)
            except (TimeoutError, exc.DBAPIError) as failure:
                if isinstance(failure, TimeoutError) or "statement timeout" in str(failure.orig):
                    raise Unavailable(
                        f"The search took longer than {SEARCH_S:g} s and was ended; search among "
                        "one model's conversations (`model`), or remove old ones",
                        retry_after_s=int(SEARCH_S),
                    ) from None
                raise

    @asynccontextmanager
    async def _turn_to_search(self, owner: str) -> AsyncGenerator[None, None]:
        """Let owners take turns: an owner's searches run one by one."""
        own = self._searching.setdefault(owner, asyncio.Lock())
        async with AsyncExitStack() as turn:
            try:
                async with asyncio.timeout(_TURN_S):
                    await turn.enter_async_context(own)
                    await turn.enter_async_context(self._turns)
            except TimeoutError:
                detail = f"Other searches were not done within {_TURN_S:g} s"
                raise Unavailable(detail, retry_after_s=int(SEARCH_S)) from None
            yield

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction; if it returns, all its changes are stored."""
        async with _translated(self.where):
            return await self._writer.write(work)

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
                await self.write(self._upgrade_if_needed)
        except OSError as failure:
            raise StoreFailed(
                f"the store of conversations {path} cannot be made: {failure.strerror or failure}"
            ) from failure

    def _upgrade_if_needed(self, connection: Connection) -> None:
        revision = None
        if inspect(connection).has_table("alembic_version"):
            revision = connection.scalar(text(_REVISION))
        schema.check_known(revision, self.where)
        if revision != schema.HEAD:
            (schema.create if revision is None else schema.upgrade)(connection)
            _log.info("schema of the store changed", before=revision, now=schema.HEAD)


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
