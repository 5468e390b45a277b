"""Stored conversations through the API."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.api.credentials import ANN, BOB, bearer
from tests.serving import serving, wait_until


def chat(api: httpx.Client, session: str | None, *texts: str, **headers: str) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    for text in texts:
        body = {
            "model": "demo",
            "messages": [{"role": "user", "content": text}],
            "session_id": session,
            "stream": False,
            "options": {"temperature": 0, "repeat_penalty": 1.0},
        }
        answer = api.post("/api/chat", json=body, headers=headers).raise_for_status().json()
        session = answer["session_id"]
    return answer


def messages(api: httpx.Client, session: str) -> list[dict[str, Any]]:
    shown = api.get(f"/api/sessions/{session}").raise_for_status().json()
    return list(shown["messages"])


def test_a_conversation_is_listed_and_shown(api: httpx.Client) -> None:
    made = chat(api, None, "My name is Marlo.", "What is my name?")["session_id"]
    [first, *_] = api.get("/api/sessions").json()["sessions"]
    assert first["id"] == made
    assert (first["model"], first["title"]) == ("demo", "My name is Marlo.")
    assert first["message_count"] == 4
    assert first["created_at"] < first["updated_at"]
    said = messages(api, made)
    assert [each["role"] for each in said] == ["user", "assistant"] * 2
    assert said[3]["content"] == "Your name is Marlo."
    assert all(each["tokens"] > 0 for each in said)
    assert not any(each["partial"] or each["superseded"] for each in said)


def test_pages_and_search(api: httpx.Client) -> None:
    for number in range(3):
        chat(api, f"page{number}", f"Nothing in particular {number}")
    found = api.get("/api/sessions", params={"search": "IN PARTICULAR", "limit": 2}).json()
    assert [each["id"] for each in found["sessions"]] == ["page2", "page1"]
    query = {"search": "in particular", "limit": 2, "cursor": found["next_cursor"]}
    rest = api.get("/api/sessions", params=query).json()
    assert [each["id"] for each in rest["sessions"]] == ["page0"]
    assert rest["next_cursor"] is None
    assert api.get("/api/sessions", params={"model": "other"}).json()["sessions"] == []
    wrong = api.get("/api/sessions", params={"limit": 0})
    assert (wrong.status_code, "limit" in wrong.json()["detail"]) == (400, True)


def test_a_title_and_an_end(api: httpx.Client) -> None:
    chat(api, "titled", "hello")
    renamed = api.patch("/api/sessions/titled", json={"title": "Greetings"}).json()
    assert renamed["title"] == "Greetings"
    assert api.patch("/api/sessions/titled", json={"title": ""}).status_code == 400
    removed = api.delete("/api/sessions/titled")
    assert removed.json() == {"status": "success", "message": "Session 'titled' removed"}
    for gone in (api.get("/api/sessions/titled"), api.delete("/api/sessions/titled")):
        assert gone.status_code == 404
        assert gone.json() == {"detail": "Session 'titled' not found"}


def test_a_branch_has_the_messages_up_to_there(api: httpx.Client) -> None:
    chat(api, "trunk", "My name is Marlo.", "My name is Quentin.")
    at = messages(api, "trunk")[1]["id"]
    forked = api.post("/api/sessions/trunk/fork", json={"message": at, "session_id": "branch"})
    assert (forked.status_code, forked.json()["id"]) == (201, "branch")
    assert chat(api, "branch", "What is my name?")["message"]["content"] == "Your name is Marlo."
    assert len(messages(api, "trunk")) == 4
    whole = api.post("/api/sessions/trunk/fork").json()
    assert whole["message_count"] == 4
    again = api.post("/api/sessions/trunk/fork", json={"session_id": "branch"})
    assert again.status_code == 409


@pytest.mark.parametrize("form", ["json", "markdown"])
def test_a_conversation_moves(api: httpx.Client, form: str) -> None:
    name = f"moving-{form}"
    chat(api, name, "My name is Marlo.")
    file = api.get(f"/api/sessions/{name}/export", params={"format": form})
    assert "attachment; filename=" in file.headers["content-disposition"]
    headers = {"Content-Type": file.headers["content-type"]}
    taken = api.post("/api/sessions/import", content=file.content, headers=headers)
    assert taken.status_code == 409
    api.delete(f"/api/sessions/{name}")
    moved = api.post("/api/sessions/import", content=file.content, headers=headers)
    assert (moved.status_code, moved.json()["id"]) == (201, name)
    assert chat(api, name, "What is my name?")["message"]["content"] == "Your name is Marlo."


def test_what_cannot_be_imported(api: httpx.Client) -> None:
    def told(content: bytes, kind: str) -> tuple[int, str]:
        headers = {"Content-Type": kind}
        answer = api.post("/api/sessions/import", content=content, headers=headers)
        return answer.status_code, answer.json()["detail"]

    assert told(b"{", "application/json")[1].startswith("the file is not valid JSON")
    assert told(b"\xff", "text/markdown") == (400, "The body is not UTF-8: invalid start byte")
    wrong_kind = "Content-Type must be application/json or text/markdown"
    assert told(b"{}", "text/plain") == (400, wrong_kind)


def test_an_edited_history_is_listed_as_superseded(api: httpx.Client) -> None:
    chat(api, "edited", "My name is Marlo.")
    said = messages(api, "edited")
    whole = [{"role": each["role"], "content": each["content"]} for each in said]
    edited = [{"role": "user", "content": "My name is Quentin."}, whole[1]]
    asked = [*edited, {"role": "user", "content": "What is my name?"}]
    body = {"model": "demo", "messages": asked, "session_id": "edited", "stream": False}
    options = {"temperature": 0, "repeat_penalty": 1.0}
    answer = api.post("/api/chat", json=body | {"options": options}).json()
    assert answer["message"]["content"] == "Your name is Quentin."
    assert [each["superseded"] for each in messages(api, "edited")] == [True] * 2 + [False] * 4


def test_a_removed_session_takes_its_saved_state_along(engine: Engine, home: Path) -> None:
    with serving(home) as server, server.client() as api:
        chat(api, "s", "MyLLM keeps conversations and their memory. " * 40)
        api.post("/api/models/demo/unload")
        folder = server.home / "data" / "kv"
        assert len(list(folder.glob("*.kv"))) == 1
        api.delete("/api/sessions/s")
        assert list(folder.glob("*.kv")) == []


def test_old_conversations_go_in_the_background(engine: Engine, home: Path) -> None:
    with serving(home) as server, server.client() as api:
        for number in range(3):
            chat(api, f"s{number}", "hello")
    with serving(home, session_max_count=1) as server, server.client() as api:

        def listed() -> list[str]:
            return [each["id"] for each in api.get("/api/sessions").json()["sessions"]]

        wait_until(lambda: listed() == ["s2"], 60, "only the last one left")


def test_an_answer_that_cannot_be_stored_has_a_warning(engine: Engine, home: Path) -> None:
    with serving(home) as server, server.client() as api:
        chat(api, "s", "My name is Marlo.")
        with closing(sqlite3.connect(home / "data" / "myllm.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            answer = chat(api, "s", "What is my name?")
            assert answer["message"]["content"] == "Your name is Marlo."
            assert answer["stored"] is False
            assert "is locked by another program" in answer["warning"]
            other.execute("ROLLBACK")
        assert len(messages(api, "s")) == 2
        assert chat(api, "s", "What is my name?")["message"]["content"] == "Your name is Marlo."


def test_another_owner_s_session_is_not_found(door: httpx.Client) -> None:
    """Nor changed: each owner has a separate session under the same id."""
    chat(door, "mine", "My name is Marlo.", **bearer(ANN))
    assert door.get("/api/sessions", headers=bearer(BOB)).json()["sessions"] == []
    said = door.get("/api/sessions/mine", headers=bearer(ANN)).json()["messages"]
    answers = [
        door.get("/api/sessions/mine", headers=bearer(BOB)),
        door.get("/api/sessions/mine/export", headers=bearer(BOB)),
        door.patch("/api/sessions/mine", headers=bearer(BOB), json={"title": "x"}),
        door.delete("/api/sessions/mine", headers=bearer(BOB)),
        door.post("/api/sessions/mine/fork", headers=bearer(BOB)),
    ]
    assert [answer.status_code for answer in answers] == [404] * len(answers)
    theirs = chat(door, "mine", "What is my name?", **bearer(BOB))
    assert "Marlo" not in theirs["message"]["content"]
    assert door.get("/api/sessions/mine", headers=bearer(ANN)).json()["messages"] == said


def test_turns_are_taken_back(api: httpx.Client) -> None:
    chat(api, "taken", "My name is Marlo.", "My name is Quentin.")
    at = messages(api, "taken")[2]["id"]
    done = api.delete(f"/api/sessions/taken/messages/{at}")
    assert done.json() == {
        "status": "success",
        "message": f"Session 'taken' goes on from before message {at}",
    }
    assert [each["superseded"] for each in messages(api, "taken")] == [False] * 2 + [True] * 2
    assert api.delete(f"/api/sessions/taken/messages/{at}").status_code == 404
    assert api.delete(f"/api/sessions/nowhere/messages/{at}").status_code == 404
    assert chat(api, "taken", "What is my name?")["message"]["content"] == "Your name is Marlo."


def test_all_turns_are_taken_back_but_not_the_instructions(api: httpx.Client) -> None:
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    body = {"model": "demo", "messages": said, "session_id": "emptied", "stream": False}
    api.post("/api/chat", json=body).raise_for_status()
    at = messages(api, "emptied")[1]["id"]
    api.delete(f"/api/sessions/emptied/messages/{at}").raise_for_status()
    chat(api, "emptied", "My name is Marlo.")
    assert [each["superseded"] for each in messages(api, "emptied")] == [
        False, True, True, False, False,
    ]  # fmt: skip
