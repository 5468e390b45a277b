"""How writes to a SQLite file share transactions."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from myllm.sessions import connections
from myllm.sessions.connections import SqliteReaders, SqliteWriter

ALL = sa.text("SELECT n FROM numbers ORDER BY n")


@pytest.fixture
def url(tmp_path: Path) -> sa.URL:
    return sa.URL.create("sqlite", database=str(tmp_path / "x.db"))


@pytest_asyncio.fixture
async def writer(url: sa.URL) -> AsyncIterator[SqliteWriter]:
    writer = SqliteWriter(url)
    table = sa.text("CREATE TABLE numbers (n INTEGER PRIMARY KEY)")
    await writer.write(lambda connection: connection.execute(table))
    yield writer
    await writer.close()


def adding(number: int) -> Callable[[Connection], int]:
    def work(connection: Connection) -> int:
        connection.execute(sa.text("INSERT INTO numbers VALUES (:n)"), {"n": number})
        return number

    return work


@asynccontextmanager
async def writing(writer: SqliteWriter) -> AsyncIterator[asyncio.Task[bool]]:
    """A write that is under way until the context is left; what comes meanwhile waits for it."""
    go_on = threading.Event()
    busy = asyncio.create_task(writer.write(lambda _: go_on.wait(10)))
    await asyncio.sleep(0.05)
    yield busy
    go_on.set()


async def at_once(writer: SqliteWriter, *numbers: int) -> list[int | BaseException]:
    """What comes of adding these, all of which have come while another write was under way."""
    async with writing(writer) as busy:
        adds = [asyncio.create_task(writer.write(adding(number))) for number in numbers]
        await asyncio.sleep(0.05)
    assert await busy
    return await asyncio.gather(*adds, return_exceptions=True)


async def stored(url: sa.URL) -> list[int]:
    reader = SqliteReaders(url, 1)
    try:
        return await reader.read(lambda connection: list(connection.scalars(ALL)))
    finally:
        await reader.close()


async def test_writes_that_arrive_during_a_transaction_share_the_next(
    writer: SqliteWriter, url: sa.URL
) -> None:
    commits: list[Connection] = []
    sa.event.listen(writer._engine, "commit", commits.append)
    assert await at_once(writer, *range(20)) == list(range(20))
    assert len(commits) == 2
    assert await stored(url) == list(range(20))


async def test_a_write_that_fails_leaves_the_others_intact(
    writer: SqliteWriter, url: sa.URL
) -> None:
    one, again, other = await at_once(writer, 1, 1, 2)
    assert (one, other) == (1, 2)
    assert isinstance(again, sa.exc.IntegrityError)
    assert await stored(url) == [1, 2]


async def test_a_cancelled_write_does_not_disturb_the_others(
    writer: SqliteWriter, url: sa.URL
) -> None:
    async with writing(writer) as busy:
        leaving, staying = (asyncio.create_task(writer.write(adding(n))) for n in (1, 2))
        await asyncio.sleep(0.05)
        leaving.cancel()
        busy.cancel()
    assert await staying == 2
    assert await stored(url) == [2]


async def test_a_locked_file_fails_all_writes_at_once(
    writer: SqliteWriter, url: sa.URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "BUSY_S", 0.5)
    impatient = SqliteWriter(url)
    with closing(sqlite3.connect(str(url.database), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        adds = [asyncio.create_task(impatient.write(adding(number))) for number in range(20)]
        told = await asyncio.gather(*adds, return_exceptions=True)
        assert time.monotonic() - began < 5  # it waits for the lock twice, and not 20 times
        other.execute("ROLLBACK")
    assert all("locked" in str(each) for each in told)
    assert await impatient.write(adding(20)) == 20
    await impatient.close()
    assert await stored(url) == [20]
