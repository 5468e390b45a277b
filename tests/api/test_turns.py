"""What a turn leaves behind: its client leaves, says it again, or another one asks meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from myllm.engine.types import Engine
from tests.api.test_cancel import ENDLESS, WITHOUT_END, Leaving, active
from tests.serving import Serving, serving, short_home, wait_until

LONG = "MyLLM keeps conversations and their memory. " * 40


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    """A server whose demo model answers two requests at a time."""
    with short_home() as path, serving(path, slots=2) as running:
        yield running


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def post(api: httpx.Client, session: str, *messages: dict[str, str], **options: Any) -> Any:
    answer = api.post(
        "/api/chat",
        json={
            "model": "demo",
            "messages": list(messages),
            "session_id": session,
            "stream": False,
            "options": {"temperature": 0, "repeat_penalty": 1.0} | options,
        },
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def told(api: httpx.Client, session: str) -> list[tuple[str, str, bool]]:
    """Role, text and whether it is a part, of the messages in force."""
    shown = api.get(f"/api/sessions/{session}").raise_for_status().json()["messages"]
    return [(m["role"], m["content"], m["partial"]) for m in shown if not m["superseded"]]


def contents(api: httpx.Client, session: str) -> list[str]:
    return [content for _, content, _ in told(api, session)]


def leave_in_the_middle(server: Serving, session: str, text: str, stream: bool = True) -> None:
    """Ask for an answer without end, and leave when it has begun."""
    with server.client() as api:
        client = Leaving(
            server, "/api/chat", model="demo", messages=[user(text)], session_id=session,
            options=ENDLESS, format=WITHOUT_END, stream=stream,
        )  # fmt: skip
        if stream:
            client.read_until(b'"token"')
        else:
            wait_until(lambda: delivering(api), 30, "an answer")
        client.leave()
        wait_until(lambda: active(api) == (0, 0), 10, "an idle gateway")
        if stream:
            wait_until(lambda: known(api, session), 10, "its part of the answer")


def known(api: httpx.Client, session: str) -> bool:
    return api.get(f"/api/sessions/{session}").status_code == 200


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
