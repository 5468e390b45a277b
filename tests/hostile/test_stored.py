"""Stored sessions and searches of one key delay neither other keys nor the server's shutdown."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.hostile.attacks import others_are_served
from tests.hostile.keyed import ANN, BOB, asking_as, keyed
from tests.serving import Serving, short_home, stop, wait_until

MUCH = "a" * 2**22


@pytest.fixture(scope="module")
def keyed_server(engine: Engine) -> Iterator[Serving]:
    with short_home() as home, keyed(home) as server:
        yield server


def document(name: str, *messages: dict[str, Any], **about: Any) -> dict[str, Any]:
    stored = list(messages) or [{"role": "user", "content": "hello"}]
    whole = {"version": 1, "id": name, "model": "demo", "title": name, "messages": stored}
    return whole | about


def stored(api: httpx.Client, name: str, text: str) -> None:
    message = {"role": "user", "content": text}
    api.post("/api/sessions/import", json=document(name, message)).raise_for_status()


def search(server: Serving, key: str, text: str) -> tuple[int, float]:
    """The status, and the seconds it took."""
    with asking_as(server, key) as api:
        began = time.monotonic()
        status = api.get("/api/sessions", params={"search": text}).status_code
        return status, time.monotonic() - began


def test_a_flood_of_costly_searches_does_not_delay_other_keys(keyed_server: Serving) -> None:
    with asking_as(keyed_server, ANN) as ann, asking_as(keyed_server, BOB) as bob:
        for number in range(4):
            stored(ann, f"much{number}", MUCH)
        stored(bob, "little", "needle")
    costly = ["a" * 2000, "a" * 511 + "b", "b" + "a" * 511, "%_" * 200]
    with others_are_served(keyed_server), ThreadPoolExecutor(16) as pool:
        flood = [pool.submit(search, keyed_server, ANN, text) for text in costly * 4]
        time.sleep(0.1)
        status, took_s = search(keyed_server, BOB, "needle")
        assert status == 200
        assert took_s < 5
        assert {each.result()[0] for each in flood} <= {200, 400, 503}


def test_a_search_does_not_delay_shutdown(engine: Engine, home: Path) -> None:
    with keyed(home) as server, ThreadPoolExecutor(8) as pool:
        with asking_as(server, ANN) as ann:
            for number in range(4):
                stored(ann, f"much{number}", MUCH)
        flood = [pool.submit(search, server, ANN, "a" * 500 + "b") for _ in range(8)]
        time.sleep(0.2)
        began = time.monotonic()
        assert stop(server.process) == 0
        assert time.monotonic() - began < 15
        for each in flood:
            each.exception()  # with any result


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (document("a", title="x" * 201), "title"),
        (
            document(
                "a",
                {
                    "role": "user",
                    "content": "x",
                    "parts": [
                        {"type": "image_url", "image_url": {"url": "http://169.254.169.254/x"}}
                    ],
                },
            ),
            "an address elsewhere",
        ),
        (
            document(
                "a",
                {
                    "role": "user",
                    "content": "x",
                    "parts": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}],
                },
            ),
            "data: URL",
        ),
        (
            document("a", {"role": "user", "content": "x", "parts": [{"type": "exec", "x": 1}]}),
            "content",
        ),
        (
            document("a", {"role": "assistant", "content": "x", "tool_calls": [{"type": "rm"}]}),
            "tool_calls",
        ),
    ],
)
def test_an_imported_file_obeys_the_limits_of_a_request(
    keyed_server: Serving, document: dict[str, Any], words: str
) -> None:
    with others_are_served(keyed_server), asking_as(keyed_server, ANN) as ann:
        refused = ann.post("/api/sessions/import", json=document)
        assert refused.status_code == 400, refused.text
        assert words in refused.json()["detail"]
        markdown = ann.post(
            "/api/sessions/import",
            content=as_markdown(document),
            headers={"Content-Type": "text/markdown"},
        )
        assert markdown.status_code == 400
        assert words in markdown.json()["detail"]


def as_markdown(document: dict[str, Any]) -> str:
    about = {name: document[name] for name in ("version", "id", "model", "title")}
    parts = [f"<!-- myllm session: {json.dumps(about)} -->\n\n"]
    for message in document["messages"]:
        fields = {name: value for name, value in message.items() if name != "content"}
        head = f"<!-- myllm message: {json.dumps(fields)} -->\n### Message"
        parts.append(f"{head}\n\n{message['content']}\n\n")
    return "".join(parts)


def test_retention_deletes_only_sessions_of_the_key_with_too_many(
    engine: Engine, home: Path
) -> None:
    with (
        keyed(home, session_max_count=3) as server,
        asking_as(server, ANN) as ann,
        asking_as(server, BOB) as bob,
    ):
        stored(bob, "only", "x")
        for number in range(6):
            stored(ann, f"s{number}", "x")
        with others_are_served(server):
            wait_until(lambda: len(ids(ann)) == 3, 60, "three sessions are left")
        assert ids(ann) == ["s5", "s4", "s3"]
        assert ids(bob) == ["only"]


def ids(api: httpx.Client) -> list[str]:
    listed = api.get("/api/sessions").raise_for_status().json()["sessions"]
    return [each["id"] for each in listed]
