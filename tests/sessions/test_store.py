"""The store: which request holds a session, what is stored of a turn, and when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from myllm.errors import Conflict, InvalidRequest, NotFound, Unavailable
from myllm.sessions import rows
from myllm.sessions.archive import Archive
from myllm.sessions.history import Message
from myllm.sessions.session import SessionRef
from myllm.sessions.store import SessionStore
from myllm.sessions.tables import sessions


def user(text: str) -> Message:
    return Message("user", text)


def said(text: str, partial: bool = False) -> Message:
    return Message("assistant", text, partial)


async def turn(
    store: SessionStore, session_id: str | None, posted: Sequence[Message], answer: Message
) -> str:
    async with store.open("local", session_id, 1) as session:
        await store.save(session, "demo", session.merged(posted), answer)
        return session.ref.id


async def contents(store: SessionStore, session_id: str) -> list[str]:
    async with store.open("local", session_id, 1) as session:
        return [message.content for message in session.messages]


async def test_a_new_session_gets_an_id_and_is_found_again(store: SessionStore) -> None:
    made = await turn(store, None, [user("hi")], said("hello"))
    assert await contents(store, made) == ["hi", "hello"]


async def test_it_is_found_by_another_server(store: SessionStore, url: str) -> None:
    made = await turn(store, "s", [user("hi")], said("hello", partial=True))
    other = SessionStore(url)
    await other.start()
    async with other.open("local", made, 1) as session:
        assert [(m.content, m.partial) for m in session.messages] == [
            ("hi", False),
            ("hello", True),
        ]
    await other.close()


async def test_an_owner_does_not_see_another_s(store: SessionStore, archive: Archive) -> None:
    await turn(store, "s", [user("hi")], said("hello"))
    async with store.open("other", "s", 1) as session:
        assert session.messages == []
    with pytest.raises(NotFound, match="Session 's' not found"):
        await archive.listed(SessionRef("other", "s"))


@pytest.mark.parametrize("wrong", ["", "../x", "-a", "a b", "é", "x" * 129])
async def test_an_id_of_a_wrong_form_is_refused(wrong: str) -> None:
    with pytest.raises(InvalidRequest, match="session_id"):
        async with SessionStore("sqlite:///unused").open("local", wrong, 1):
            pass


async def test_the_second_request_on_a_session_waits_for_the_first(store: SessionStore) -> None:
    order = []

    async def request(name: str) -> None:
        async with store.open("local", "s", 5):
            order.append(f"{name} in")
            await asyncio.sleep(0.01)
            order.append(f"{name} out")

    await asyncio.gather(request("one"), request("two"))
    assert order == ["one in", "one out", "two in", "two out"]


async def test_the_wait_for_a_session_is_bounded(store: SessionStore) -> None:
    async with store.open("local", "s", 1):
        with pytest.raises(Unavailable, match="still being answered"):
            async with store.open("local", "s", 0.01):
                pass
        with pytest.raises(Conflict, match="being answered"):
            await store.remove(SessionRef("local", "s"))


async def test_a_turn_is_stored_although_its_client_has_left(store: SessionStore) -> None:
    started = asyncio.Event()

    async def request() -> None:
        async with store.open("local", "s", 1) as session:
            merged = session.merged([user("hi")])
            try:
                started.set()
                await asyncio.sleep(60)
            finally:
                await store.save(session, "demo", merged, said("hel", partial=True))

    task = asyncio.create_task(request())
    await started.wait()
    for _ in range(3):  # some callers cancel again and again
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await contents(store, "s") == ["hi", "hel"]


async def test_edited_history_supersedes_what_came_after(
    store: SessionStore, archive: Archive
) -> None:
    await turn(store, "s", [user("one"), said("1"), user("two")], said("2"))
    await turn(store, "s", [user("one"), said("1"), user("three")], said("3"))
    assert await contents(store, "s") == ["one", "1", "three", "3"]
    _, listed = await archive.listed(SessionRef("local", "s"))
    assert [(each.message.content, each.superseded) for each in listed] == [
        ("one", False),
        ("1", False),
        ("two", True),
        ("2", True),
        ("three", False),
        ("3", False),
    ]


async def test_one_system_message_is_in_force(store: SessionStore, archive: Archive) -> None:
    first, second = Message("system", "be brief"), Message("system", "be long")
    await turn(store, "s", [first, user("one")], said("1"))
    await turn(store, "s", [first, user("two")], said("2"))
    await turn(store, "s", [second, user("three")], said("3"))
    _, listed = await archive.listed(SessionRef("local", "s"))
    systems = [(m.message.content, m.superseded) for m in listed if m.message.role == "system"]
    assert systems == [("be brief", True), ("be long", False)]
    async with store.open("local", "s", 1) as session:
        assert session.system is not None
        assert session.system.content == "be long"
        assert len(session.messages) == 6


async def test_a_later_system_message_stays_in_its_place(
    store: SessionStore, archive: Archive
) -> None:
    first, second, late = (Message("system", text) for text in ("brief", "long", "now loud"))
    await turn(store, "s", [first, user("one"), late], said("1"))
    await turn(store, "s", [second, user("two")], said("2"))
    async with store.open("local", "s", 1) as session:
        assert session.system is not None
        assert session.system.content == "long"
        assert [message.content for message in session.messages] == [
            "one",
            "now loud",
            "1",
            "two",
            "2",
        ]
    await archive.fork(SessionRef("local", "s"), "branch", None)
    assert await contents(store, "branch") == ["one", "now loud", "1", "two", "2"]


async def test_a_stored_answer_is_continued_in_its_place(
    store: SessionStore, archive: Archive
) -> None:
    await turn(store, "s", [user("hi")], said("hel", partial=True))
    await turn(store, "s", [user("hi"), said("hel")], said("lo"))
    _, listed = await archive.listed(SessionRef("local", "s"))
    assert [(each.message.content, each.message.partial) for each in listed] == [
        ("hi", False),
        ("hello", False),
    ]


async def test_a_posted_beginning_is_stored_with_its_rest(store: SessionStore) -> None:
    await turn(store, "s", [user("hi"), said("hel")], said("lo"))
    assert await contents(store, "s") == ["hi", "hello"]


async def test_a_session_that_changed_elsewhere_is_not_overwritten(
    store: SessionStore, archive: Archive
) -> None:
    await turn(store, "s", [user("one")], said("1"))
    async with store.open("local", "s", 1) as session:
        merged = session.merged([user("two")])
        await archive.append(session, "demo", merged, said("elsewhere"))
        with pytest.raises(Conflict, match="changed or removed"):
            await store.save(session, "demo", merged, said("here"))
    assert await contents(store, "s") == ["one", "1", "two", "elsewhere"]


async def test_two_requests_begin_the_same_session(store: SessionStore, archive: Archive) -> None:
    async with store.open("local", "s", 1) as session:
        merged = session.merged([user("one")])
        await archive.append(session, "demo", merged, said("elsewhere"))
        with pytest.raises(Conflict, match="exists already"):
            await store.save(session, "demo", merged, said("here"))
    assert await contents(store, "s") == ["one", "elsewhere"]


async def test_what_is_more_than_text_is_kept_and_counted(
    store: SessionStore, archive: Archive
) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "x" * 3000}}
    calls = Message("assistant", "", extra={"tool_calls": [call], "thinking": "hm"})
    await turn(store, "s", [user("hi")], calls)
    await turn(store, "s", [Message("tool", "done", extra={"tool_call_id": "1"})], said("hello"))
    async with store.open("local", "s", 1) as session:
        assert [message.extra for message in session.messages] == [
            None,
            {"tool_calls": [call], "thinking": "hm"},
            {"tool_call_id": "1"},
            None,
        ]
    await turn(store, "t", [user("hi")], said("hello"))
    most = 2000  # bytes, of which the newer session takes few and the older one more than these
    assert [each.id for each in await archive.surplus(None, None, most)] == ["s"]


async def test_a_new_session_is_counted_as_a_changed_one_is(
    store: SessionStore, archive: Archive
) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"ü": 1}'}}
    answer = Message("assistant", "naïve \0 \N{GRINNING FACE}", extra={"tool_calls": [call]})
    await turn(store, "s", [Message("system", "Be brief."), user("héllo")], answer)
    (new, listed) = await archive.listed(SessionRef("local", "s"))
    database = await store.database()
    counts = sa.select(sessions.c.messages, sessions.c.size_bytes)

    def count_again(connection: sa.Connection) -> tuple[sa.Row[Any], sa.Row[Any]]:
        [at_first] = connection.execute(counts).all()
        rows.count(connection, new.key)
        [again] = connection.execute(counts).all()
        return at_first, again

    at_first, again = await database.write(count_again)
    text = sum(len(each.message.content.encode()) for each in listed)
    assert at_first == again == (3, text + len(json.dumps(answer.extra)))


async def test_a_continued_answer_keeps_its_calls(store: SessionStore) -> None:
    thought = Message("assistant", "It", partial=True, extra={"thinking": "hm"})
    await turn(store, "s", [user("hi")], thought)
    async with store.open("local", "s", 1) as session:
        posted = [user("hi"), said("It")]
        call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        rest = Message("assistant", " is", extra={"tool_calls": [call]})
        await store.save(session, "demo", session.merged(posted), rest)
    async with store.open("local", "s", 1) as session:
        assert session.messages[-1].content == "It is"
        assert session.messages[-1].extra == {"thinking": "hm", "tool_calls": [call]}
