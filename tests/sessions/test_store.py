"""Sessions in memory: made, locked, bounded."""

from __future__ import annotations

import asyncio

import pytest

from myllm.errors import InvalidRequest, Unavailable
from myllm.sessions.history import Message
from myllm.sessions.store import MOST_SESSIONS, SessionStore


async def test_a_new_session_gets_an_id_and_is_found_again() -> None:
    store = SessionStore()
    async with store.open("local", None, 1) as session:
        session.store(session.merged([Message("user", "hi")]), Message("assistant", "hello"))
        made = session.id
    async with store.open("local", made, 1) as again:
        assert [message.content for message in again.messages] == ["hi", "hello"]


async def test_an_id_that_the_client_made_is_created() -> None:
    async with SessionStore().open("local", "my-chat:1", 1) as session:
        assert session.id == "my-chat:1"


@pytest.mark.parametrize("wrong", ["", "../x", "-a", "a b", "é", "x" * 129])
async def test_an_id_of_a_wrong_form_is_refused(wrong: str) -> None:
    with pytest.raises(InvalidRequest, match="session_id"):
        async with SessionStore().open("local", wrong, 1):
            pass


async def test_the_second_request_on_a_session_waits_for_the_first() -> None:
    store, order = SessionStore(), []

    async def request(name: str) -> None:
        async with store.open("local", "s", 5):
            order.append(f"{name} in")
            await asyncio.sleep(0.01)
            order.append(f"{name} out")

    await asyncio.gather(request("one"), request("two"))
    assert order == ["one in", "one out", "two in", "two out"]


async def test_that_wait_is_bounded() -> None:
    store = SessionStore()
    async with store.open("local", "s", 1):
        with pytest.raises(Unavailable, match="still being answered"):
            async with store.open("local", "s", 0.01):
                pass


async def test_the_least_recently_used_are_forgotten() -> None:
    store = SessionStore()
    for number in range(MOST_SESSIONS + 10):
        async with store.open("local", f"s{number}", 1) as session:
            session.messages.append(Message("user", "x"))
    async with store.open("local", "s0", 1) as forgotten:
        assert forgotten.messages == []
    async with store.open("local", f"s{MOST_SESSIONS}", 1) as kept:
        assert kept.messages
