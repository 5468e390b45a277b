"""Searches are bounded: in time, in cost, and in how many an owner runs at once."""

from __future__ import annotations

import asyncio
import time

import pytest
import sqlalchemy as sa

from myllm.errors import Unavailable
from myllm.sessions import database as databases
from myllm.sessions.archive import Archive
from myllm.sessions.history import Message
from myllm.sessions.session import SessionRef
from myllm.sessions.store import SessionStore

# Takes minutes in either database.
FOREVER = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000000000) "
    "SELECT count(*) FROM n"
)
SHORT_S = 0.3


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """To be asked for before the store."""
    monkeypatch.setattr(databases, "SEARCH_S", SHORT_S)


def endless(database: databases.Database, owner: str) -> asyncio.Task[object]:
    work = database.search(owner, lambda connection: connection.scalar(sa.text(FOREVER)))
    return asyncio.create_task(work)


async def add(archive: Archive, owner: str, text: str) -> None:
    await archive.add(SessionRef(owner, f"s{len(text)}"), "demo", "", [Message("user", text)])


async def test_a_search_that_takes_too_long_is_ended(
    impatient: None, store: SessionStore, archive: Archive
) -> None:
    database = await store.database()
    for turn in range(1, 4):  # the connection can be used again
        with pytest.raises(Unavailable, match="took longer than"):
            await asyncio.wait_for(endless(database, "ann"), 20)
        await add(archive, "ann", "needle" * turn)
        assert (await archive.page("ann", 1, search="needle"))[0]


async def test_another_owner_waits_for_one_of_many_searches_only(
    impatient: None, store: SessionStore, archive: Archive
) -> None:
    await add(archive, "bob", "needle")
    database = await store.database()
    flood = [endless(database, "ann") for _ in range(20)]
    await asyncio.sleep(SHORT_S / 3)
    began = time.monotonic()
    assert (await archive.page("bob", 1, search="needle"))[0]
    assert time.monotonic() - began < 10 * SHORT_S
    assert not all(each.done() for each in flood)
    for each in flood:
        each.cancel()
    await asyncio.gather(*flood, return_exceptions=True)


async def test_the_store_closes_while_a_search_runs(url: str) -> None:
    store = SessionStore(url)
    await store.start()
    running = endless(await store.database(), "ann")
    await asyncio.sleep(0.2)
    assert not running.done()
    await asyncio.wait_for(store.close(), 10)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("searched", ["a" * 512, "a" * 511 + "b", "b" + "a" * 511, "aB" * 256])
async def test_a_search_that_matches_almost_everywhere_is_cheap(
    archive: Archive, searched: str
) -> None:
    await add(archive, "ann", "a" * 2**22)
    began = time.monotonic()
    found, _ = await archive.page("ann", 1, search=searched)
    assert time.monotonic() - began < 5
    assert bool(found) is (searched == "a" * 512)
