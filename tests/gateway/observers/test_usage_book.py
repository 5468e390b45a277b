"""Usage is added up in memory and stored in the background, whatever the store does."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
import structlog

from myllm.errors import EngineDied, MyLLMError, Unavailable
from myllm.gateway.client import Client
from myllm.gateway.observers import usage_book
from myllm.gateway.observers.usage_book import UsageBook
from myllm.gateway.request_record import RequestRecord
from myllm.sessions.store import SessionStore
from myllm.sessions.usage import UsageStore
from myllm.sessions.usage_counts import HOUR_S, Counts, Place, UsageQuery
from myllm.supervisor.spec import InstanceKey

EVER = UsageQuery("key", 0, 2**40)


class Flaky(UsageStore):
    """A store that fails before or after it has written, as long as it is told to."""

    fails: str | None = None

    async def add(self, writer: str, number: int, counts: object) -> None:
        if self.fails == "before":
            raise Unavailable("locked")
        await super().add(writer, number, counts)  # type: ignore[arg-type]
        if self.fails == "after":
            raise Unavailable("no answer")


@pytest.fixture
async def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Flaky]:
    monkeypatch.setattr("myllm.sessions.connections.BUSY_S", 0.1)
    sessions = SessionStore(f"sqlite:///{tmp_path / 'myllm.db'}")
    await sessions.start()
    await sessions.check()
    yield Flaky(sessions.database)
    await sessions.close()


def ended(key: str | None = "ann", model: str | None = "demo", tokens: int = 5) -> RequestRecord:
    record = RequestRecord("r", "POST", "/api/chat", "native", "127.0.0.1")
    record.client = Client(key_name=key)
    record.model = None if model is None else InstanceKey(model, "generate")
    record.status, record.tickets, record.generated_tokens, record.slot_s = 200, 1, tokens, 0.5
    return record


async def test_requests_are_added_up_in_memory_and_then_in_the_store(store: Flaky) -> None:
    book = UsageBook(store)
    failed = ended(tokens=0)
    failed.error = EngineDied("gone")
    for record in (ended(), ended(), failed, ended("bob"), ended(None)):
        book.request_ended(record)
    wanted = {
        "ann": Counts(3, 0, 0, 10, 1.5, 1),
        "bob": Counts(1, 0, 0, 5, 0.5),
        "": Counts(1, 0, 0, 5, 0.5),
    }
    assert await book.sums(EVER) == wanted
    assert await store.sums(EVER) == {}
    await book.write()
    assert await book.sums(EVER) == await store.sums(EVER) == wanted
    await book.write()  # nothing is new
    assert await store.sums(EVER) == wanted


async def test_what_has_no_model_or_no_answer_is_not_counted(store: Flaky) -> None:
    book, query = UsageBook(store), ended()
    query.tickets = 0
    for record in (ended(model=None), query):
        book.request_ended(record)
    assert await book.sums(EVER) == {}


@pytest.mark.parametrize("fails", ["before", "after"])
async def test_a_failing_store_loses_nothing_and_counts_nothing_twice(
    store: Flaky, fails: str
) -> None:
    book = UsageBook(store)
    for step in (fails, fails, None):
        store.fails = step
        book.request_ended(ended())
        book.request_ended(ended("bob"))
        if step is None:
            await book.write()
        else:
            with pytest.raises(Unavailable):
                await book.write()
    sums = {"ann": Counts(3, 0, 0, 15, 1.5), "bob": Counts(3, 0, 0, 15, 1.5)}
    assert await store.sums(EVER) == await book.sums(EVER) == sums


async def test_a_locked_store_is_written_once_it_is_free(
    store: Flaky, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_book, "_EVERY_S", 0.02)
    book = UsageBook(store)
    with structlog.testing.capture_logs() as log:
        with closing(sqlite3.connect(tmp_path / "myllm.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            running = asyncio.create_task(book.run())
            for _ in range(40):
                book.request_ended(ended())
                await asyncio.sleep(0.02)
            other.execute("ROLLBACK")
        async with asyncio.timeout(30):
            while (await store.sums(EVER)).get("ann") != Counts(40, 0, 0, 200, 20.0):
                await asyncio.sleep(0.02)
    running.cancel()
    assert [each["event"] for each in log] == ["background work failed", "background work goes on"]


async def test_memory_stays_bounded_and_exact_while_the_store_fails(
    store: Flaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_book, "MAX_PLACES", 100)
    book, now = UsageBook(store), time.time()
    store.fails = "before"
    for hour in range(300):
        monkeypatch.setattr(usage_book.time, "time", lambda hour=hour: now + hour * HOUR_S)
        for key in ("ann", "bob"):
            book.request_ended(ended(key))
        with pytest.raises(Unavailable):
            await book.write()
        assert len(book._new) <= 102
    store.fails = None
    await book.write()
    sums = Counts(300, 0, 0, 1500, 150.0)
    assert await store.sums(EVER) == {"ann": sums, "bob": sums}


async def test_many_rows_are_written_a_few_at_a_time(
    store: Flaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_book, "_IN_A_WRITE", 7)
    book = UsageBook(store)
    for number in range(50):
        book.request_ended(ended(f"key{number}"))
    store.fails = "after"
    for _ in range(3):
        with pytest.raises(Unavailable):
            await book.write()
    assert len(await store.sums(EVER)) == 7
    store.fails = None
    await book.write()
    assert await store.sums(EVER) == {f"key{n}": Counts(1, 0, 0, 5, 0.5) for n in range(50)}


async def test_a_clock_that_is_set_back_counts_in_the_earlier_hour(
    store: Flaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = UsageBook(store)
    for now in (10 * HOUR_S + 5, 9 * HOUR_S + 1800, 10 * HOUR_S):
        monkeypatch.setattr(usage_book.time, "time", lambda now=now: now)
        book.request_ended(ended())
    assert {place: counts.requests for place, counts in book._new.items()} == {
        Place(10 * HOUR_S, "ann", "demo"): 2,
        Place(9 * HOUR_S, "ann", "demo"): 1,
    }


async def test_closing_writes_the_rest_or_says_what_is_lost(store: Flaky) -> None:
    book = UsageBook(store)
    book.request_ended(ended())
    await book.close()
    assert (await store.sums(EVER))["ann"].requests == 1
    store.fails = "before"
    book.request_ended(ended())
    with structlog.testing.capture_logs() as log:
        await book.close()
    [line] = log
    assert (line["event"], line["requests"], line["cause"]) == ("usage not stored", 1, "locked")


async def test_a_store_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    book = UsageBook(UsageStore(SessionStore("mysql://x").database))
    with pytest.raises(MyLLMError):
        await book.sums(EVER)
