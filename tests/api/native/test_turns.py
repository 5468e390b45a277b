"""What a turn leaves in the store when its client leaves or repeats it, or with two at once."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.api.native.test_cancel import ENDLESS, WITHOUT_END, Leaving, active
from tests.serving import Serving, serving, short_home, wait_until

LONG = "MyLLM keeps conversations and their memory. " * 40


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    """A server whose demo model answers two requests at a time."""
    with short_home() as path, serving(path, slots=2) as running:
        yield running


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def post(
    api: httpx.Client,
    session: str,
    *messages: dict[str, str],
    history: str | None = None,
    **options: Any,
) -> Any:
    answer = api.post(
        "/api/chat",
        json={
            "model": "demo",
            "messages": list(messages),
            "session_id": session,
            "history": history,
            "stream": False,
            "options": {"temperature": 0, "repeat_penalty": 1.0} | options,
        },
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def told(api: httpx.Client, session: str) -> list[tuple[str, str, bool]]:
    """Return role, text and `partial` of the messages that are not superseded."""
    shown = api.get(f"/api/sessions/{session}").raise_for_status().json()["messages"]
    return [(m["role"], m["content"], m["partial"]) for m in shown if not m["superseded"]]


def contents(api: httpx.Client, session: str) -> list[str]:
    return [content for _, content, _ in told(api, session)]


def endless_turn(server: Serving, session: str, text: str, stream: bool = True) -> Leaving:
    return Leaving(
        server, "/api/chat", model="demo", messages=[user(text)], session_id=session,
        options=ENDLESS, format=WITHOUT_END, stream=stream,
    )  # fmt: skip


def leave_in_the_middle(
    server: Serving, session: str, text: str, stream: bool = True, after: int = 0
) -> None:
    """Request an endless answer, and leave when it has begun; `after` so many messages."""
    with server.client() as api:
        client = endless_turn(server, session, text, stream)
        if stream:
            client.read_until(b'"token"')
        else:
            wait_until(lambda: delivering(api), 30, "an answer")
        client.leave()
        wait_until(lambda: active(api) == (0, 0), 10, "an idle gateway")
        if stream:
            wait_until(lambda: stored(api, session) == after + 2, 10, "its part of the answer")


def stored(api: httpx.Client, session: str) -> int:
    """Return the number of messages of a session, 0 for one that does not exist yet."""
    return len(api.get(f"/api/sessions/{session}").json().get("messages", ()))


def delivering(api: httpx.Client) -> bool:
    shown = api.get("/api/instances").json()["instances"]
    return any(each["slots"]["busy"] for each in shown if each["state"] == "ready")


def test_who_leaves_in_the_middle_finds_what_was_sent(server: Serving, api: httpx.Client) -> None:
    leave_in_the_middle(server, "left", LONG)
    [(_, question, _), (role, part, partial)] = told(api, "left")
    assert (question, role, partial) == (LONG, "assistant", True)
    assert part.startswith("[")
    post(api, "left", user("And then?"))
    assert contents(api, "left")[:3] == [LONG, part, "And then?"]


def test_its_slot_is_kept_too(server: Serving, api: httpx.Client) -> None:
    leave_in_the_middle(server, "kept", LONG)
    api.post("/api/models/demo/unload").raise_for_status()
    assert post(api, "kept", user("And then?"))["usage"]["cached_tokens"] > 300


def test_of_an_answer_that_is_not_streamed_nothing_was_sent(
    server: Serving, api: httpx.Client
) -> None:
    leave_in_the_middle(server, "unsent", LONG, stream=False)
    post(api, "unsent", user("My name is Marlo."))
    assert contents(api, "unsent")[0] == "My name is Marlo."


def test_its_question_again_is_answered_anew(server: Serving, api: httpx.Client) -> None:
    """By a client that sends only new turns: the partial answer goes, the question stays once."""
    post(api, "again", user("My name is Marlo."))
    leave_in_the_middle(server, "again", "What is my name?", after=2)
    answer = post(api, "again", user("What is my name?"))
    assert answer["message"]["content"] == "Your name is Marlo."
    assert contents(api, "again")[2:] == ["What is my name?", "Your name is Marlo."]


def test_a_client_that_saw_less_than_was_stored(server: Serving, api: httpx.Client) -> None:
    leave_in_the_middle(server, "less", "Numbers")
    part = contents(api, "less")[1]
    shorter = {"role": "assistant", "content": part[:1]}
    post(api, "less", user("Numbers"), shorter, user("hello"))
    assert contents(api, "less")[:3] == ["Numbers", part[:1], "hello"]
    assert len(contents(api, "less")) == 4


def test_a_whole_history_regenerates_the_last_answer(api: httpx.Client) -> None:
    first = post(api, "anew", user("My name is Marlo."))["message"]
    post(api, "anew", user("What is my name?"))
    before = contents(api, "anew")
    post(api, "anew", user("My name is Marlo."), first, user("What is my name?"))
    assert contents(api, "anew") == before
    shown = api.get("/api/sessions/anew").json()["messages"]
    assert [each["superseded"] for each in shown] == [False] * 3 + [True, False]


def test_an_answered_question_can_be_repeated(api: httpx.Client) -> None:
    for text in ("My name is Marlo.", "What is my name?", "What is my name?"):
        answer = post(api, "twice", user(text))
    assert answer["message"]["content"] == "Your name is Marlo."
    assert len(contents(api, "twice")) == 6


def test_the_first_sentence_again_deletes_nothing(api: httpx.Client) -> None:
    for text in ("hello", "My name is Marlo.", "hello", "What is my name?"):
        answer = post(api, "greeted", user(text))
    assert answer["message"]["content"] == "Your name is Marlo."
    shown = api.get("/api/sessions/greeted").json()["messages"]
    assert [each["superseded"] for each in shown] == [False] * 8


@pytest.mark.parametrize(("history", "messages"), [("append", 4), ("full", 2), (None, 2)])
def test_a_client_can_state_what_it_sends(
    api: httpx.Client, history: str | None, messages: int
) -> None:
    session = f"stated-{history}"
    for _ in range(2):
        post(api, session, user("hello"), history=history)
    assert len(contents(api, session)) == messages


def test_another_word_for_the_history_is_refused(api: httpx.Client) -> None:
    body = {"model": "demo", "messages": [user("hello")], "history": "some"}
    answer = api.post("/api/chat", json=body)
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("history must be one of 'full' or 'append'")


def test_a_system_message_with_each_turn_is_kept_once(api: httpx.Client) -> None:
    system = {"role": "system", "content": "Be brief."}
    for text in ("My name is Marlo.", "What is my name?"):
        answer = post(api, "system", system, user(text))
    assert answer["message"]["content"] == "Your name is Marlo."
    assert [role for role, _, _ in told(api, "system")].count("system") == 1
    other = {"role": "system", "content": "Be long."}
    post(api, "system", other, user("hello"))
    systems = [content for role, content, _ in told(api, "system") if role == "system"]
    assert systems == ["Be long."]


def test_two_requests_on_one_session(server: Serving, api: httpx.Client) -> None:
    """The second waits for the first and sees it; two sessions do not wait for each other."""
    post(api, "both", user("My name is Marlo."))

    def ask(text: str) -> str:
        with server.client() as client:
            return str(post(client, "both", user(text))["message"]["content"])

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, ["What is my name?"] * 4))
    assert answers == ["Your name is Marlo."] * 4
    assert contents(api, "both")[2:] == ["What is my name?", "Your name is Marlo."] * 4


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a\0b", "messages[0].content must not have the character U+0000"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_it_is_answered(
    api: httpx.Client, text: str, told: str
) -> None:
    body = json.dumps({"model": "demo", "messages": [user(text)], "stream": False})
    headers = {"Content-Type": "application/json"}
    answer = api.post("/api/chat", content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(told)


@pytest.mark.parametrize("query", [{"cursor": "1_99999999999999999999"}, {"search": "\0"}])
def test_a_list_that_cannot_be_is_refused(api: httpx.Client, query: dict[str, str]) -> None:
    answer = api.get("/api/sessions", params=query)
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(("cursor must be", "query.search must not"))


def test_a_server_killed_between_and_within_turns_loses_nothing_else(
    engine: Engine, home: Path
) -> None:
    """Before any KV state was saved, and in the middle of an answer."""
    for killed in ("between", "within"):
        with serving(home) as server, server.client() as api:
            post(api, killed, user("My name is Marlo."))
            before = told(api, killed)
            if killed == "within":
                client = endless_turn(server, killed, "Numbers")
                client.read_until(b'"token"')
            os.kill(server.process.pid, signal.SIGKILL)
            server.process.wait()
        with closing(sqlite3.connect(home / "data" / "myllm.db")) as store:
            assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        with serving(home) as server, server.client() as api:
            assert told(api, killed) == before
            answer = post(api, killed, user("What is my name?"))
            assert answer["message"]["content"] == "Your name is Marlo."
