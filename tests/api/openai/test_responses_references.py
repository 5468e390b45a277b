"""References to items of stored answers: what they load, and how much they may name."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from myllm.api.openai.responses_references import resolved
from myllm.errors import InvalidRequest, NotFound
from myllm.sessions import rows
from myllm.sessions.archive import Archive
from myllm.sessions.history import Message
from myllm.sessions.session import SessionRef
from myllm.sessions.store import SessionStore

ASKED = {"role": "user", "content": "hello"}
MUCH = 1 << 20


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SessionStore]:
    made = SessionStore(f"sqlite:///{tmp_path / 'myllm.db'}")
    await made.start()
    yield made
    await made.close()


async def answer(store: SessionStore, text: str, turns: int = 0) -> str:
    """Store a conversation that ends with an answer, and return the id of its message."""
    session = uuid.uuid4()
    key = f"{session.hex}{'0' * 16}"
    record: Any = {"id": f"resp_{key}", "created_at": 1, "model": "demo", "asked": {}}
    extra: Any = {"response": record | {"ended": "stop", "usage": None}}
    before = [Message("user", "hello"), Message("assistant", "Hi.")] * turns
    said = [*before, Message("user", "hello"), Message("assistant", text, extra=extra)]
    await (await store.archive()).add(SessionRef("local", str(session)), "demo", "", said)
    return f"msg_{key}"


def reference(item_id: str) -> dict[str, Any]:
    return {"type": "item_reference", "id": item_id}


async def test_references_become_what_they_name(store: SessionStore) -> None:
    first, second = await answer(store, "One."), await answer(store, "Two.")
    given = [reference(first), ASKED, {"id": second}, reference(first)]
    made = await resolved(store, "local", given, MUCH)
    texts = [each["content"][0]["text"] for each in (made[0], made[2], made[3])]
    assert texts == ["One.", "Two.", "One."]
    assert made[1] == ASKED


async def test_what_another_owner_has_is_not_found(store: SessionStore) -> None:
    stored = await answer(store, "One.")
    for wrong in (stored, "msg_x", "", "rs_" + stored[4:]):
        owner = "other" if wrong == stored else "local"
        with pytest.raises(NotFound, match=f"Item with id '{wrong}' not found"):
            await resolved(store, owner, [reference(wrong)], MUCH)


async def test_a_reference_loads_one_message_of_a_long_session(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = await answer(store, "One.", turns=50)
    made: list[Message] = []

    def noted(*fields: Any) -> Message:
        made.append(Message(*fields))
        return made[-1]

    monkeypatch.setattr(rows, "Message", noted)
    await resolved(store, "local", [reference(stored)], MUCH)
    assert [message.content for message in made] == ["One."]


async def test_an_answer_is_loaded_once_however_often_it_is_named(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[SessionRef] = []
    load = Archive.newest

    async def noted(self: Archive, ref: SessionRef, *more: Any) -> Message | None:
        loads.append(ref)
        return await load(self, ref, *more)

    monkeypatch.setattr(Archive, "newest", noted)
    stored = await answer(store, "One.")
    await resolved(store, "local", [reference(stored)] * 300, MUCH)
    assert len(loads) == 1


async def test_references_that_name_too_much_are_refused(store: SessionStore) -> None:
    stored, other = await answer(store, "x" * 3000), await answer(store, "y" * 3000)
    once = await resolved(store, "local", [reference(stored)], 4000)
    assert len(once[0]["content"][0]["text"]) == 3000
    for given in ([reference(stored)] * 2, [reference(stored), reference(other)]):
        with pytest.raises(InvalidRequest, match="more than 4,000 bytes"):
            await resolved(store, "local", given, 4000)
