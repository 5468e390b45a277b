"""Answers that are not to be stored, and those that cannot be."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.api.events import parse, post, stream
from tests.serving import Serving, serving, short_home, wait_until

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
    """Return the counts once every slot was saved: sessions, KV files, and their records."""
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


@pytest.fixture
def small_data(home: Path) -> Iterator[Path]:
    """A data directory on a file system of eight MiB."""
    folder = home / "data"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Fill the file system to its last block."""
    filler = folder / "filler"
    filler.write_bytes(b"x" * shutil.disk_usage(folder).free)
    assert shutil.disk_usage(folder).free == 0
    return filler


FULL = "the disk is full"


@pytest.mark.needs_root
def test_a_full_disk_costs_no_answer(engine: Engine, home: Path, small_data: Path) -> None:
    with serving(home) as server, server.client() as api:
        first = chat(api, "My name is Marlo.", session_id="s")
        assert not {"stored", "warning"} & first.keys()
        filler = fill(small_data)
        told = chat(api, "What is my name?", session_id="s")
        assert (told["message"]["content"], told["stored"]) == ("Your name is Marlo.", False)
        assert told["warning"].startswith("This turn is not stored. The store of conversations")
        assert FULL in told["warning"]
        wait_until(lambda: "turn not stored" in server.log, 20, "a line in the log")

        messages = [{"role": "user", "content": "Who are you?"}]
        tokens, last = stream(api, "/api/chat", model="demo", messages=messages, options=GREEDY)
        assert "".join(tokens) == last["full_text"] != ""
        assert (last["stored"], FULL in last["warning"]) == (False, True)
        assert api.get(f"/api/sessions/{last['session_id']}").status_code == 404
        assert len(api.get("/api/sessions/s").json()["messages"]) == 2

        filler.unlink()
        again = chat(api, "What is my name?", session_id="s")
        assert (again["message"]["content"], "stored" in again) == ("Your name is Marlo.", False)
        assert len(api.get("/api/sessions/s").json()["messages"]) == 4
        assert chat(api, "What is my name?", session_id=last["session_id"])["session_id"]


@pytest.mark.needs_root
def test_nor_a_response(engine: Engine, home: Path, small_data: Path) -> None:
    ask = {"model": "demo", "temperature": 0}
    with serving(home) as server, server.client() as api:
        first = post(api, "/v1/responses", input="My name is Marlo.", **ask)
        filler = fill(small_data)
        on = {"input": "What is my name?", "previous_response_id": first["id"]}
        second = post(api, "/v1/responses", **on, **ask)
        assert second["output"][0]["content"][0]["text"] == "Your name is Marlo."
        assert (second["status"], second["stored"]) == ("completed", False)
        assert FULL in second["warning"]
        assert api.get(f"/v1/responses/{second['id']}").status_code == 404
        with api.stream("POST", "/v1/responses", json=on | ask | {"stream": True}) as answer:
            *_, last = [parse(line) for line in answer.iter_lines() if line.startswith("data: ")]
        assert (last["type"], last["response"]["stored"]) == ("response.completed", False)
        filler.unlink()
        third = post(api, "/v1/responses", **on, **ask)
        assert "stored" not in third
        assert api.get(f"/v1/responses/{third['id']}").json() == third


@pytest.mark.needs_root
def test_a_state_that_cannot_be_recorded_leaves_no_file(
    engine: Engine, home: Path, small_data: Path
) -> None:
    with serving(home, kv_cache_mb=4) as server, server.client() as api:
        chat(api, LONG, session_id="s")
        fill(small_data)
        api.post("/api/models/demo/unload")
        wait_until(lambda: "conversation not saved" in server.log, 20, "a line in the log")
        assert [file.name for file in (small_data / "kv").iterdir()] == ["folder-id"]
