"""Answers that are not to be stored, and those that cannot be."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest

from myllm.engine.types import Engine
from tests.api.events import post, stream
from tests.serving import Serving, serving, short_home

LONG = "Zanzibar keeps conversations and their memory. " * 40
GREEDY = {"temperature": 0, "repeat_penalty": 1.0, "max_tokens": 60}


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    """All conversations share one slot."""
    with short_home() as home, serving(home, slots=1) as running:
        yield running


def chat(api: httpx.Client, text: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    body = {"model": "demo", "messages": messages, "stream": False, "options": GREEDY}
    return dict(post(api, "/api/chat", **body | fields))


def kept(server: Serving, api: httpx.Client) -> tuple[int, set[str], int]:
    """What is stored once every slot was saved: sessions, files of states, records of those."""
    api.post("/api/models/demo/unload")
    with closing(sqlite3.connect(server.home / "data" / "myllm.db")) as store:
        [sessions], [records] = (
            store.execute(f"SELECT count(*) FROM {table}").fetchone()
            for table in ("sessions", "kv_files")
        )
    return sessions, {file.name for file in (server.home / "data" / "kv").glob("*.kv")}, records


def test_a_chat_that_is_not_to_be_stored_leaves_nothing(server: Serving, api: httpx.Client) -> None:
    chat(api, "hello")
    before = kept(server, api)
    whole = chat(api, LONG, store=False)
    assert (whole["session_id"], bool(whole["message"]["content"])) == (None, True)
    messages = [{"role": "user", "content": LONG}]
    _, last = stream(api, "/api/chat", model="demo", messages=messages, store=False, options=GREEDY)
    assert (last["session_id"], last["full_text"]) == (None, whole["message"]["content"])
    assert kept(server, api) == before
    assert all(
        b"Zanzibar" not in file.read_bytes()
        for file in (server.home / "data").rglob("*")
        if file.is_file()
    )
    assert chat(api, LONG)["usage"]["cached_tokens"] == 0


def test_it_can_go_on_from_a_session_and_leaves_that_alone(
    server: Serving, api: httpx.Client
) -> None:
    session = chat(api, "My name is Marlo.", session_id="mine")["session_id"]
    chat(api, LONG, session_id=session)
    shown = api.get(f"/api/sessions/{session}").json()
    before = kept(server, api)
    aside = chat(api, "What is my name?", session_id=session, store=False)
    assert (aside["message"]["content"], aside["session_id"]) == ("Your name is Marlo.", None)
    assert kept(server, api) == before
    assert api.get(f"/api/sessions/{session}").json() == shown
    after = chat(api, "What is my name?", session_id=session)
    assert after["message"]["content"] == "Your name is Marlo."
    assert after["usage"]["cached_tokens"] > 300


def test_a_response_that_is_not_to_be_stored_leaves_nothing(
    server: Serving, api: httpx.Client
) -> None:
    ask = {"model": "demo", "temperature": 0, "max_output_tokens": 60}
    first = post(api, "/v1/responses", input=f"My name is Marlo. {LONG}", **ask)
    before = kept(server, api)
    other = post(api, "/v1/responses", input=f"Alone. {LONG}", store=False, **ask)
    on = {"input": "What is my name?", "previous_response_id": first["id"]}
    second = post(api, "/v1/responses", store=False, **on, **ask)
    assert kept(server, api) == before
    for made in (other, second):
        assert api.get(f"/v1/responses/{made['id']}").status_code == 404
    third = post(api, "/v1/responses", **on, **ask)
    assert third["usage"]["input_tokens_details"]["cached_tokens"] > 300
    assert third["output"][0]["content"] == second["output"][0]["content"]
