"""The store of usage, on both databases."""

from __future__ import annotations

import asyncio

import pytest

from myllm.sessions.store import SessionStore
from myllm.sessions.usage import UsageStore
from myllm.sessions.usage_counts import DAY_S, HOUR_S, Counts, Grouping, Place, UsageQuery

DAY = 20_000 * DAY_S
EVER = UsageQuery("model", 0, 2**40)
ONE = Counts(1, 10, 4, 5, 0.25, 0)
BAD = Counts(1, 0, 0, 0, 0.5, 1)


def twice(counts: Counts, more: Counts | None = None) -> Counts:
    both = Counts()
    both.add(counts)
    both.add(more or counts)
    return both


@pytest.fixture
def usage(store: SessionStore) -> UsageStore:
    return UsageStore(store.database)


async def test_counts_are_added_up_by_each_group(usage: UsageStore) -> None:
    await usage.add("w", 1, {Place(DAY, "ann", "demo"): ONE, Place(DAY, "bob", "demo"): BAD})
    await usage.add("w", 2, {Place(DAY + DAY_S, "ann", "qwen"): ONE})
    await usage.add("w", 3, {Place(DAY + HOUR_S, "ann", "demo"): ONE})
    wanted: dict[Grouping, object] = {
        "key": {"ann": twice(twice(ONE), ONE), "bob": BAD},
        "model": {"demo": twice(twice(ONE), BAD), "qwen": ONE},
        "day": {DAY: twice(twice(ONE), BAD), DAY + DAY_S: ONE},
    }
    for by, sums in wanted.items():
        assert await usage.sums(UsageQuery(by, 0, 2**40)) == sums


async def test_only_what_is_wanted_is_added_up(usage: UsageStore) -> None:
    places = [Place(DAY, "ann", "demo"), Place(DAY + HOUR_S, "bob", "demo"), Place(DAY, "", "qwen")]
    await usage.add("w", 1, dict.fromkeys(places, ONE))
    for query, models in [
        (UsageQuery("model", DAY, DAY + HOUR_S), {"demo", "qwen"}),
        (UsageQuery("model", DAY + 1, DAY + HOUR_S), set()),
        (UsageQuery("model", DAY + 1, DAY + HOUR_S + 1), {"demo"}),
        (UsageQuery("model", 0, 2**40, key="ann"), {"demo"}),
        (UsageQuery("model", 0, 2**40, key=""), {"qwen"}),
        (UsageQuery("model", 0, 2**40, key="bob", model="qwen"), set()),
    ]:
        found = await usage.sums(query)
        assert set(found) == models
        # What is still in memory is chosen in the same way.
        assert {query.group(place) for place in places} - {None} == models


async def test_a_write_that_is_repeated_adds_nothing(usage: UsageStore) -> None:
    place = Place(DAY, "ann", "demo")
    await usage.add("w", 1, {place: ONE})
    await usage.add("w", 1, {place: ONE})
    assert await usage.sums(EVER) == {"demo": ONE}
    await usage.add("w", 2, {place: ONE})
    await usage.add("w", 1, {place: ONE})  # arrives late
    assert await usage.sums(EVER) == {"demo": twice(ONE)}


async def test_two_servers_add_to_the_same_rows(usage: UsageStore, url: str) -> None:
    other = SessionStore(url)
    await other.start()
    theirs = UsageStore(other.database)
    places = [Place(DAY, f"key{number}", "demo") for number in range(20)]
    for number in range(1, 11):
        await asyncio.gather(
            usage.add("one", number, dict.fromkeys(places, ONE)),
            theirs.add("two", number, dict.fromkeys(reversed(places), ONE)),
        )
    [sums] = (await usage.sums(EVER)).values()
    assert (sums.requests, sums.prompt_tokens, sums.slot_s) == (400, 4000, 100.0)
    await other.close()


@pytest.mark.parametrize("by", ["key", "day"])
async def test_many_sums_are_read_in_pages(
    usage: UsageStore, monkeypatch: pytest.MonkeyPatch, by: Grouping
) -> None:
    monkeypatch.setattr("myllm.sessions.usage._PAGE", 7)
    for count in (6, 7, 8, 21):
        first = count * 1000 * DAY_S
        places = [
            Place(first + n * DAY_S, f"{count}-{n}" if n else "", "demo") for n in range(count)
        ]
        await usage.add(f"w{count}", 1, dict.fromkeys(places, ONE))
        query = UsageQuery(by, first, first + count * DAY_S)
        assert await usage.sums(query) == {query.group(place): ONE for place in places}


async def test_counts_do_not_overflow(usage: UsageStore) -> None:
    much = Counts(2**40, 2**50, 2**50, 2**50, 1e12, 2**40)
    await usage.add("w", 1, {Place(DAY, "ann", "demo"): much})
    await usage.add("w", 2, {Place(DAY, "ann", "demo"): much})
    assert await usage.sums(EVER) == {"demo": twice(much)}
