"""Lists, searches, forks, and sessions over the limits."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa

from myllm.errors import Conflict, InvalidRequest, NotFound
from myllm.sessions.archive import Archive, title_of
from myllm.sessions.history import Message
from myllm.sessions.session import SessionRef
from myllm.sessions.store import SessionStore

# A search that takes about a second in either database.
COUNTING = """
    WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 3000000)
    SELECT count(*) FROM numbers
"""


async def add(archive: Archive, name: str, *texts: str, owner: str = "local") -> None:
    roles = ("user", "assistant")
    said = [Message(roles[n % 2], text) for n, text in enumerate(texts)]  # type: ignore[arg-type]
    await archive.add(SessionRef(owner, name), "demo", "", said)


async def test_pages_come_newest_first_and_join(archive: Archive) -> None:
    for number in range(7):
        await add(archive, f"s{number}", "hi", "hello")
    await add(archive, "foreign", "hi", owner="other")
    ids: list[str] = []
    cursor = None
    for _ in range(3):
        page, cursor = await archive.page("local", 3, cursor)
        ids += [each.id for each in page]
    assert ids == ["s6", "s5", "s4", "s3", "s2", "s1", "s0"]
    assert cursor is None


async def test_the_newest_message_with_a_text_is_found_without_loading_the_others(
    archive: Archive,
) -> None:
    ref = SessionRef("local", "s")
    names = ["a", "b", "other", "b", "a"]
    said = [
        Message("assistant", str(n), extra={"thinking": f"{n} {name}", "tool_call_id": name})
        for n, name in enumerate(names)
    ]
    await archive.add(ref, "demo", "", [Message("user", "b?"), *said])
    looked_at: list[str] = []

    def is_wanted(message: Message) -> bool:
        looked_at.append(message.content)
        return (message.extra or {}).get("tool_call_id") == "b"

    found = await archive.newest(ref, "b", is_wanted)
    assert found is not None
    assert (found.content, looked_at) == ("3", ["3"])
    assert await archive.newest(ref, "q", is_wanted) is None
    assert await archive.newest(SessionRef("other", "s"), "b", is_wanted) is None
    assert looked_at == ["3"]


@pytest.mark.parametrize(
    "wrong", ["x", "1_2_3", "a_1", "", "1_99999999999999999999", "1_-1", "nan_1", "1e400_1"]
)
async def test_an_invalid_cursor_is_refused(archive: Archive, wrong: str) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        await archive.page("local", 3, wrong)


async def test_search_looks_into_titles_and_messages(archive: Archive) -> None:
    await add(archive, "a", "Where is Paris?", "In France.")
    await add(archive, "b", "100% sure?", "Yes.")
    await add(archive, "c", "100 pages", "Fine.")

    async def found(search: str) -> list[str]:
        return [each.id for each in (await archive.page("local", 10, search=search))[0]]

    assert await found("france") == ["a"]
    assert await found("100%") == ["b"]
    assert await found("_") == []
    await archive.rename(SessionRef("local", "c"), "Reading")
    assert await found("reading") == ["c"]


async def test_a_fork_has_what_was_said_until_there(archive: Archive) -> None:
    await add(archive, "s", "one", "1", "two", "2")
    _, listed = await archive.listed(SessionRef("local", "s"))
    at = listed[1].message.key
    await archive.fork(SessionRef("local", "s"), "branch", at)
    loaded = await archive.load(SessionRef("local", "branch"))
    assert loaded is not None
    assert [message.content for message in loaded[1]] == ["one", "1"]
    assert loaded[0].title == "one"
    await archive.fork(SessionRef("local", "s"), "whole", None)
    with pytest.raises(Conflict, match="exists already"):
        await archive.fork(SessionRef("local", "s"), "branch", None)
    with pytest.raises(NotFound, match="no message 12345"):
        await archive.fork(SessionRef("local", "s"), "other", 12345)
    with pytest.raises(NotFound, match="'none' not found"):
        await archive.fork(SessionRef("local", "none"), "other", None)


async def test_a_fork_has_the_system_message_that_was_in_force_then(
    store: SessionStore, archive: Archive
) -> None:
    for system, question in (("be brief", "one"), ("be long", "two")):
        async with store.open("local", "s", 1) as session:
            turn = session.merged([Message("system", system), Message("user", question)])
            await store.save(session, "demo", turn, Message("assistant", "yes"))
    _, listed = await archive.listed(SessionRef("local", "s"))
    first = next(each.message for each in listed if each.message.role == "assistant")

    async def forked(name: str, at: int | None) -> list[str]:
        await archive.fork(SessionRef("local", "s"), name, at)
        loaded = await archive.load(SessionRef("local", name))
        assert loaded is not None
        return [message.content for message in loaded[1]]

    assert await forked("early", first.key) == ["be brief", "one", "yes"]
    assert await forked("whole", None) == ["be long", "one", "yes", "two", "yes"]


async def test_characters_that_no_database_can_store_are_replaced(
    store: SessionStore, archive: Archive
) -> None:
    async with store.open("local", "s", 1) as session:
        turn = session.merged([Message("user", "hi")])
        await store.save(session, "demo", turn, Message("assistant", "a\0b"))
    loaded = await archive.load(SessionRef("local", "s"))
    assert loaded is not None
    assert [message.content for message in loaded[1]] == ["hi", "a\ufffdb"]


async def test_bytes_are_counted_not_characters(archive: Archive) -> None:
    await add(archive, "s", "日本語" * 100)
    await add(archive, "t", "abc" * 100)
    assert [each.id for each in await archive.surplus(None, None, 1000)] == ["s"]
    assert await archive.surplus(None, None, 1200) == []


async def test_a_search_does_not_keep_a_chat_from_its_history(
    store: SessionStore, archive: Archive
) -> None:
    await add(archive, "s", "one", "1")
    database = await store.database()
    long = asyncio.create_task(
        database.search("local", lambda connection: connection.scalar(sa.text(COUNTING)))
    )
    waiting = [asyncio.create_task(archive.page("local", 1, search="one")) for _ in range(9)]
    await asyncio.wait(waiting, timeout=0.1)
    assert await asyncio.wait_for(archive.load(SessionRef("local", "s")), 5)
    assert not long.done()
    assert await long == 3_000_000
    assert all(await asyncio.gather(*waiting))


async def test_a_removed_session_is_gone_with_its_messages(archive: Archive) -> None:
    await add(archive, "s", "secret", "yes")
    await archive.remove(SessionRef("local", "s"))
    assert await archive.load(SessionRef("local", "s")) is None
    assert (await archive.page("local", 10, search="secret"))[0] == []
    with pytest.raises(NotFound):
        await archive.remove(SessionRef("local", "s"))
    await add(archive, "s", "anew")
    loaded = await archive.load(SessionRef("local", "s"))
    assert loaded is not None
    assert [message.content for message in loaded[1]] == ["anew"]


async def test_the_oldest_are_surplus(archive: Archive) -> None:
    for number in range(4):
        await add(archive, f"s{number}", "x" * 100, "y" * 100)
    pages, _ = await archive.page("local", 10)
    times = {each.id: each.updated for each in pages}

    async def surplus(
        before: float | None = None, most: int | None = None, most_bytes: int | None = None
    ) -> list[str]:
        return [each.id for each in await archive.surplus(before, most, most_bytes)]

    assert await surplus() == []
    assert await surplus(before=times["s2"]) == ["s0", "s1"]
    assert await surplus(most=3) == ["s0"]
    assert await surplus(most_bytes=500) == ["s0", "s1"]


@pytest.mark.parametrize(
    ("text", "title"),
    [("hi", "hi"), ("  two\n lines ", "two lines"), ("x" * 80, "x" * 59 + "…"), ("", "")],
)
def test_a_title_is_the_first_words(text: str, title: str) -> None:
    assert title_of([Message("system", "s"), Message("user", text)]) == title
