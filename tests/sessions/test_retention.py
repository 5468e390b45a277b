"""Sessions over the limits are removed, and no others."""

from __future__ import annotations

import pytest

from myllm.sessions.archive import Archive
from myllm.sessions.history import Message
from myllm.sessions.retention import Limits, Retention
from myllm.sessions.session import SessionRef
from myllm.sessions.store import SessionStore


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("myllm.sessions.retention._BETWEEN_S", 0)


@pytest.fixture
async def filled(store: SessionStore, archive: Archive) -> SessionStore:
    """Six sessions of 1,000 characters each, of two owners."""
    for number in range(6):
        said = [Message("user", "x" * 1000)]
        await archive.add(SessionRef(f"owner{number % 2}", f"s{number}"), "demo", "", said)
    return store


async def left(archive: Archive) -> list[str]:
    pages = [(await archive.page(f"owner{number}", 100))[0] for number in range(2)]
    return sorted(each.id for page in pages for each in page)


@pytest.mark.parametrize(
    ("limits", "stay"),
    [
        (Limits(max_count=2), ["s2", "s3", "s4", "s5"]),
        (Limits(max_mb=0.002), ["s2", "s3", "s4", "s5"]),
        (Limits(max_age_s=3600), ["s0", "s1", "s2", "s3", "s4", "s5"]),
        (Limits(max_age_s=0), []),
        (Limits(max_age_s=-1), ["s0", "s1", "s2", "s3", "s4", "s5"]),
    ],
)
async def test_the_oldest_sessions_are_removed(
    filled: SessionStore, archive: Archive, limits: Limits, stay: list[str]
) -> None:
    removed = await Retention(filled, limits).remove_surplus()
    assert await left(archive) == stay
    assert removed == 6 - len(stay)


async def test_an_owner_loses_no_session_to_another_owner(
    filled: SessionStore, archive: Archive
) -> None:
    await archive.add(SessionRef("ann", "old"), "demo", "", [Message("user", "x")])
    for number in range(6, 26):
        await archive.add(
            SessionRef("owner0", f"s{number}"), "demo", "", [Message("user", "x" * 1000)]
        )
    await Retention(filled, Limits(max_count=3, max_mb=0.003)).remove_surplus()
    kept = {
        owner: len((await archive.page(owner, 100))[0]) for owner in ("ann", "owner0", "owner1")
    }
    assert kept == {"ann": 1, "owner0": 3, "owner1": 3}


async def test_a_session_that_is_being_answered_stays_for_now(
    filled: SessionStore, archive: Archive
) -> None:
    retention = Retention(filled, Limits(max_count=1))
    async with filled.open("owner0", "s0", 1):
        await retention.remove_surplus()
        assert await left(archive) == ["s0", "s4", "s5"]
    await retention.remove_surplus()
    assert await left(archive) == ["s4", "s5"]


async def test_before_removal_is_called_for_each_session(filled: SessionStore) -> None:
    told: list[SessionRef] = []

    async def listen(session: SessionRef) -> None:
        told.append(session)

    filled.before_removal = listen
    await Retention(filled, Limits(max_count=2)).remove_surplus()
    assert told == [SessionRef("owner0", "s0"), SessionRef("owner1", "s1")]


def test_limits_that_limit_nothing_are_false() -> None:
    assert not Limits()
    assert not Limits(max_age_s=-1)
    assert Limits(max_age_s=0)
