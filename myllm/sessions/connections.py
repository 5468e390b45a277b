"""Connections to the database: SQLite's in threads of their own, PostgreSQL's on the event loop.

SQLite's statements take microseconds; switching threads for each would cost more than all of
them. So the work on a connection is a function of the connection, which runs in one go.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, Connection, Engine

from myllm.errors import MyLLMError
from myllm.loops import in_background

T = TypeVar("T")
BUSY_S = 5.0
_CONNECT_S = 10.0
# Work that takes longer means that the disk or the network is gone.
ANSWER_S = 60.0
_AGAIN_S = 0.05
_MAX_BATCH = 64
_STOPPING = TimeoutError("the server is stopping")


class Readers(Protocol):
    """Connections for reading. The methods raise what drivers raise, and TimeoutError."""

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` returns for a connection."""
        ...

    async def close(self) -> None: ...


class Writer(Protocol):
    """Connections for writing. The methods raise what drivers raise, and TimeoutError."""

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` returns for a connection in a transaction, undone if it raises.

        `work` may be undone and run again because of other works in the same transaction.
        """
        ...

    async def close(self) -> None: ...


class SqliteReaders:
    """At most `size` connections, each used by one thread at a time.

    Work is interrupted when it takes longer than `answer_s` seconds, and when they are closed.
    """

    def __init__(self, url: URL, size: int, answer_s: float = ANSWER_S) -> None:
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="sqlite")
        self._engine = _sqlite(url, size)
        self._answer_s = answer_s
        self._running: dict[object, Any] = {}  # the driver's connection of each running job
        self._guard = threading.Lock()

    async def read(self, work: Callable[[Connection], T]) -> T:
        job = object()

        def run() -> T:
            with self._engine.connect() as connection:
                with self._guard:
                    self._running[job] = connection.connection.driver_connection
                try:
                    return work(connection)
                finally:
                    with self._guard:
                        del self._running[job]

        running = asyncio.get_running_loop().run_in_executor(self._threads, run)
        try:
            async with asyncio.timeout(self._answer_s):
                return await running
        finally:
            self._interrupt(job)

    async def close(self) -> None:
        ending = asyncio.create_task(asyncio.to_thread(self._shut_down))
        while not ending.done():
            for job in list(self._running):
                self._interrupt(job)
            await asyncio.wait({ending}, timeout=_AGAIN_S)
        self._engine.dispose()

    def _shut_down(self) -> None:
        self._threads.shutdown(cancel_futures=True)

    def _interrupt(self, job: object) -> None:
        """Interrupt a job until it ends; SQLite ignores an interrupt between two statements."""
        with self._guard:
            connection = self._running.get(job)
            if connection is None:
                return
            connection.interrupt()
        asyncio.get_running_loop().call_later(_AGAIN_S, self._interrupt, job)


_Work = Callable[[Connection], Any]
_Outcome = tuple[Any, Exception | None]
_Write = tuple[_Work, asyncio.Future[Any]]


class _WorkFailed(Exception):
    """The database refused one of several works, which may have undone the others, too."""


class SqliteWriter:
    """The only connection that writes, in a thread of its own.

    Each transaction ends with a wait for the disk. Works that arrive meanwhile share the next
    transaction.
    """

    def __init__(self, url: URL) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite")
        self._engine = _sqlite(url, 1)
        self._waiting: deque[_Write] = deque()
        self._writing: asyncio.Task[None] | None = None

    async def write(self, work: Callable[[Connection], T]) -> T:
        written: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, written))
        if self._writing is None:
            self._writing = in_background("writing to the store", self._write_all())
        async with asyncio.timeout(ANSWER_S):
            return await written

    async def close(self) -> None:
        if self._writing is not None:
            await asyncio.wait({self._writing})
        await asyncio.to_thread(self._thread.shutdown)
        self._engine.dispose()

    async def _write_all(self) -> None:
        batch: list[_Write] = []
        try:
            while batch := self._take_batch():
                run = asyncio.get_running_loop().run_in_executor
                outcomes = await run(self._thread, self._outcomes, [work for work, _ in batch])
                for (_, written), outcome in zip(batch, outcomes, strict=True):
                    _resolve(written, *outcome)
        except BaseException as failure:
            reason = failure if isinstance(failure, Exception) else _STOPPING
            for _, written in (*batch, *self._waiting):
                _resolve(written, None, reason)
            self._waiting.clear()
            raise
        finally:
            self._writing = None

    def _take_batch(self) -> list[_Write]:
        """Return the next works whose callers still wait; a cancelled work is not written later."""
        taken: list[_Write] = []
        while self._waiting and len(taken) < _MAX_BATCH:
            if not (write := self._waiting.popleft())[1].done():
                taken.append(write)
        return taken

    def _outcomes(self, works: Sequence[_Work]) -> list[_Outcome]:
        """Run each work, in one transaction unless the database refuses one of them."""
        try:
            with self._engine.connect() as connection, connection.begin():
                # The driver would begin the transaction at the first write. A read before it could
                # then make the write fail at once instead of waiting for its turn.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                if len(works) == 1:
                    return [(works[0](connection), None)]
                return [_outcome(connection, work) for work in works]
        except _WorkFailed:
            return [outcome for work in works for outcome in self._outcomes([work])]
        except Exception as failure:  # noqa: BLE001 - each caller gets it
            return [(None, failure)] * len(works)


def _outcome(connection: Connection, work: _Work) -> _Outcome:
    """Run one of several works, and undo its changes when it raises one of our errors.

    Raises _WorkFailed for any other error.
    """
    try:
        with connection.begin_nested():
            return work(connection), None
    except MyLLMError as failure:
        return None, failure
    except Exception as failure:
        raise _WorkFailed from failure


class PostgresPool:
    """At most `size` connections, and for a moment `overflow` more.

    Work that takes longer than `answer_s` seconds is cancelled, by the server if it still answers.
    """

    def __init__(self, url: URL, size: int, overflow: int, answer_s: float = ANSWER_S) -> None:
        from sqlalchemy.ext.asyncio import (
            create_async_engine,  # loads a driver, which SQLite does not need
        )

        self._engine = create_async_engine(
            _for_asyncpg(url),
            pool_size=size,
            max_overflow=overflow,
            pool_timeout=BUSY_S,
            pool_pre_ping=True,
            connect_args={
                "timeout": _CONNECT_S,
                "command_timeout": answer_s + _CONNECT_S,
                "server_settings": {"statement_timeout": str(int(1000 * answer_s))},
            },
        )

    async def read(self, work: Callable[[Connection], T]) -> T:
        async with self._engine.connect() as connection:
            return await connection.run_sync(work)

    async def write(self, work: Callable[[Connection], T]) -> T:
        async with self._engine.begin() as connection:
            return await connection.run_sync(work)

    async def close(self) -> None:
        await self._engine.dispose()


def _resolve(written: asyncio.Future[Any], result: Any, failure: Exception | None) -> None:
    if written.done():
        return  # its caller no longer waits
    if failure is None:
        written.set_result(result)
    else:
        written.set_exception(failure)


def _sqlite(url: URL, size: int) -> Engine:
    engine = create_engine(
        url.set(drivername="sqlite"),
        pool_size=size,
        max_overflow=0,
        # Writers commit or undo their transactions themselves, and readers have none.
        pool_reset_on_return=None,
        connect_args={"timeout": BUSY_S, "isolation_level": None, "check_same_thread": False},
    )
    event.listen(engine, "connect", _set_up)
    return engine


def _for_asyncpg(url: URL) -> URL:
    """Return `url` for asyncpg, which has another name for one of libpq's options."""
    query = {("ssl" if key == "sslmode" else key): value for key, value in url.query.items()}
    return url.set(drivername="postgresql+asyncpg", query=query)


def _set_up(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # an answered turn outlives a power cut
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()
