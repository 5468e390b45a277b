"""Large inputs that would stop the server for all clients, if a step were quadratic or ran on the
event loop.

Each input is far larger than what agents send. `serving` checks in the log at the end that the
event loop was never blocked.
"""

from __future__ import annotations

import base64
import os
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from myllm.api.ollama.schemas import OllamaMessage
from myllm.api.ollama.translate import messages_of
from myllm.errors import InvalidModel, InvalidRequest, ModelNotFound
from myllm.gateway.client import Client
from myllm.gateway.conversation.ignored import Ignored
from myllm.gateway.conversation.normalize import normalized
from myllm.gateway.engine_io.token_spelling import last_that_spell
from myllm.gateway.media.data_urls import checked_base64, read_data_url
from myllm.gateway.prompt.fit import _Turns
from myllm.gateway.prompt.prefixes import (
    Pieces,
    common_chars,
    pieces_of_messages,
    pieces_of_text,
    pieces_of_wire,
)
from myllm.gateway.scheduling.fair_queue import FairQueue
from myllm.gateway.scheduling.tickets import RequestInfo, Ticket
from myllm.models import model_cache
from myllm.models.registry import Registry
from myllm.sessions.history import Message
from myllm.supervisor.spec import InstanceKey
from tests.hostile.attacks import others_are_served
from tests.serving import Serving, never_blocked, serving, short_home

pytestmark = pytest.mark.full  # long computations

MANY = 12_000
MEBI = 2**20
# CPU time: ten times what linear work takes on two slow cores; quadratic work took 14 to 49 s.
SOON_S = 10.0
# A busy machine adds to the 50 ms of a calm one; these inputs once blocked it for 4 s and more.
SLOWEST_S = 2.0


@pytest.fixture
def timed() -> Iterator[None]:
    began = time.process_time()
    yield
    assert time.process_time() - began < SOON_S


# Calls and results


def called(*ids_and_names: tuple[str, str]) -> OllamaMessage:
    calls = [{"id": call_id, "function": {"name": name}} for call_id, name in ids_and_names]
    return OllamaMessage.model_validate({"role": "assistant", "tool_calls": calls})


def answered(**fields: Any) -> OllamaMessage:
    return OllamaMessage(role="tool", content="x", **fields)


def results(*messages: OllamaMessage) -> list[str]:
    made = normalized(messages_of(messages), Ignored())
    return [each["tool_call_id"] for each in made if each["role"] == "tool"]


def test_results_go_to_the_calls_that_they_fit() -> None:
    calls = called(("1", "a"), ("2", "b"), ("3", "a"), ("4", "b"))
    assert results(calls, *[answered()] * 5) == ["1", "2", "3", "4", ""]
    assert results(calls, answered(tool_name="b"), answered(), answered(tool_name="a")) == [
        *("2", "1", "3")
    ]
    assert results(calls, answered(tool_call_id="3"), answered(tool_name="a")) == ["3", "1"]
    assert results(calls, answered(tool_name="c"), answered(tool_call_id="9")) == ["", "9"]
    assert results(called(("1", "a")), called(("1", "b")), answered(tool_name="a")) == ["1"]


@pytest.mark.parametrize("name", [None, "last"])
@pytest.mark.usefixtures("timed")
def test_the_time_per_call_does_not_grow_with_their_number(name: str | None) -> None:
    calls = [(f"{number}", "last" if number % 2 else "first") for number in range(4 * MANY)]
    asked = [called(*calls[start : start + MANY]) for start in range(0, len(calls), MANY)]
    contents = results(*asked, *[answered(tool_name=name)] * (2 * MANY))
    assert contents[-1] == str(4 * MANY - 1 if name else 2 * MANY - 1)


# The first message kept after trimming


def test_the_turn_after_what_was_left_out() -> None:
    roles: list[Any] = ["system", "user", "assistant", "user", "system", "assistant", "user"]
    turns = _Turns([Message(role, "x") for role in roles])
    assert [turns.before(turn) for turn in range(turns.count)] == [0, 2, 4]
    assert [turns.after(left_out) for left_out in range(6)] == [0, 0, 1, 0, 2, 0]


@pytest.mark.usefixtures("timed")
def test_the_next_turn_of_a_long_trimmed_conversation_is_found_at_once() -> None:
    messages = [Message(role, "x") for _ in range(4 * MANY) for role in ("user", "assistant")]
    assert _Turns(messages).after(8 * MANY - 2) == 4 * MANY - 1


# The queue


@pytest.mark.usefixtures("timed")
def test_the_places_of_many_waiting_requests_are_found_at_once() -> None:
    """Each stream tells its client every few seconds which place it has."""
    queue, key = FairQueue(), InstanceKey("demo", "generate")
    waiting = [Ticket(key, at, RequestInfo(Client(fair_id=str(at % 50)))) for at in range(MANY)]
    for ticket in waiting:
        queue.add(ticket)
    places = [queue.position(ticket, [], 16, MANY) for ticket in waiting]
    assert sorted(places) == list(range(1, MANY + 1))


# Media


def test_base64_is_checked_as_strictly_as_it_can_be() -> None:
    for good in ("YQ==", "YWI=", "YWJj", "Y W\nJ\tj", "YWJjYQ=="):
        assert base64.b64decode(checked_base64(good, "x"), validate=True)
    for bad in ("YQ=", "YQ", "Y", "=YQ=", "YQ==YQ==", "Y===", "====", "YW-j", "YWJj=", "YWé=", "="):
        with pytest.raises(InvalidRequest, match="not valid base64"):
            checked_base64(bad, "x")
    for empty in ("", " \n"):
        with pytest.raises(InvalidRequest, match="must not be empty"):
            checked_base64(empty, "x")


def test_a_data_url_is_read_up_to_its_comma() -> None:
    assert read_data_url("data:image/PNG;x=y;base64,YWJj", "x") == (
        *("image", "data:image/PNG;base64,YWJj"),
    )
    for bad in ("data:image/png,YWJj", "data:;base64,YWJj", "data:image/png;base64", "data:,"):
        with pytest.raises(InvalidRequest, match="must be a data: URL"):
            read_data_url(bad, "x")
    with pytest.raises(InvalidRequest, match="must be a data: URL"):
        read_data_url("data:image/png" + ";a" * MEBI + ";base64,YWJj", "x")


PICTURES = {
    "whole": base64.b64encode(bytes(10 * MEBI)).decode(),
    "in lines": "YWJj\n" * (2 * MEBI),
    "almost base64": "A" * (13 * MEBI) + "!",
    "nothing but spaces": " " * (13 * MEBI),
    "parameters": ";a" * (6 * MEBI),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_large_picture_does_not_block_other_clients(
    server: Serving, api: httpx.Client, name: str
) -> None:
    url = f"data:image/png;base64,{PICTURES[name]}"
    if name == "parameters":
        url = f"data:image/png{PICTURES[name]}"
    part = {"type": "image_url", "image_url": {"url": url}}
    body = {"model": "demo", "messages": [{"role": "user", "content": [part]}]}
    with others_are_served(server, SLOWEST_S, grows_mb=250):
        for path in ("/v1/chat/completions", "/api/chat"):
            assert api.post(path, json=body).status_code == 400
        body = {"model": "demo", "messages": [{"role": "user", "content": "x", "images": [url]}]}
        assert api.post("/ollama/api/chat", json=body).status_code == 400


# Texts with far more tokens than a context holds

TEXT = "z" * (8 * MEBI)  # as many tokens; the engine takes two seconds to find them
SAID = [{"role": "user", "content": TEXT}]
TEXTS: dict[str, dict[str, Any]] = {
    "/api/chat": {"messages": SAID, "stream": False},
    "/v1/responses": {"input": TEXT},
    "/v1/chat/completions": {"messages": SAID},
    "/v1/completions": {"prompt": [TEXT]},
    "/v1/messages": {"messages": SAID, "max_tokens": 1},
    "/apply-template": {"messages": SAID},
    "/tokenize": {"content": TEXT},
    "/v1/embeddings": {"input": TEXT},
    "/ollama/api/embed": {"input": TEXT},
}


@pytest.mark.parametrize("path", TEXTS)
def test_a_long_text_does_not_block_other_clients(
    server: Serving, api: httpx.Client, path: str
) -> None:
    """Reading all of its tokens kept Python's lock for a quarter of a second."""
    logged = len(server.log)
    with others_are_served(server, SLOWEST_S, grows_mb=250):
        answer = api.post(path, json={"model": "demo"} | TEXTS[path])
        reads = path in ("/apply-template", "/tokenize", "/ollama/api/embed")
        assert answer.status_code == (200 if reads else 400), answer.text[:300]
    never_blocked(server.log[logged:])


def test_a_long_text_in_a_conversation_that_a_slot_holds(
    server: Serving, api: httpx.Client
) -> None:
    """Each token of what follows the slot's was read with its piece: for two seconds."""
    logged = len(server.log)
    asked: dict[str, Any] = {"model": "demo", "stream": False, "session_id": "long"}
    hello = [{"role": "user", "content": "Hello"}]
    api.post("/api/chat", json=asked | {"messages": hello}).raise_for_status()
    with others_are_served(server, SLOWEST_S, grows_mb=250):
        answer = api.post("/api/chat", json=asked | {"messages": SAID})
        assert answer.status_code == 400, answer.text[:300]
        assert "context" in answer.text
    never_blocked(server.log[logged:])


@pytest.mark.usefixtures("timed")
def test_the_last_tokens_of_a_long_prompt_are_found_at_once() -> None:
    tokens = [(number, b"word") for number in range(40 * MANY)]
    assert last_that_spell(tokens, b"word" * (40 * MANY - 1)) == list(range(1, 40 * MANY))


# Common beginnings of conversations


def test_long_texts_and_pictures_are_told_apart_by_beginning_and_length() -> None:
    def seen(url: str, text: str = "x") -> Pieces:
        picture = {"type": "image_url", "image_url": {"url": url}}
        content = [picture, {"type": "text", "text": text}]
        message = Message("user", text, extra={"parts": content})
        return (
            *pieces_of_wire([{"role": "user", "content": content}]),
            *pieces_of_messages([message]),
        )

    long = "a" * MEBI
    assert seen(long) == seen(long)
    others = [seen(long + "a"), seen("b" + long[1:]), seen(long, "y"), seen("")]
    assert all(one != other for one, other in zip(seen(long) * 4, sum(others, ()), strict=False))
    assert common_chars(pieces_of_text(long + "b"), pieces_of_text(long + "c")) == MEBI


@pytest.mark.usefixtures("timed")
def test_comparing_beginnings_takes_no_longer_for_large_texts() -> None:
    picture = [{"type": "image_url", "image_url": {"url": "a" * (14 * MEBI)}}]
    for _ in range(100):
        pieces_of_text("a" * (14 * MEBI))
        pieces_of_wire([{"role": "user", "content": picture}])
        pieces_of_messages([Message("user", "a" * (14 * MEBI), extra={"parts": picture})])


# A model whose file is broken


def string_array(path: Path, count: int) -> None:
    """Write a sparse GGUF whose vocabulary has `count` empty words, and which ends right after
    them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    key = b"tokenizer.ggml.tokens"
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 1, 8))
        for _ in range(8):
            file.write(struct.pack("<Q", len(key)) + key + struct.pack("<IIQ", 9, 8, count))
            file.seek(8 * count, 1)
        file.truncate(file.tell())


def settle(folder: Path) -> None:
    """Set the times of the files to a long time ago."""
    for each in folder.rglob("*"):
        os.utime(each, (1e9, 1e9))


def test_a_broken_model_is_read_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    load = model_cache.load_model
    monkeypatch.setattr(
        model_cache, "load_model", lambda *given: (read.append(given[0]), load(*given))[1]
    )
    registry = Registry(tmp_path, tmp_path / "none")
    file = tmp_path / "broken" / "broken.gguf"
    string_array(file, 10)

    def times_read() -> int:
        read.clear()
        with pytest.raises(ModelNotFound):
            registry.get("unknown")
        return len(read)

    assert [times_read(), times_read()] == [1, 1], (
        "a recent file is read each time, since a copy may still be running"
    )
    settle(tmp_path)
    assert [times_read(), times_read(), times_read()] == [1, 0, 0]
    with pytest.raises(InvalidModel, match=r"broken\.gguf"):
        registry.get("broken")
    assert len(read) == 0
    file.write_bytes(b"something else")
    settle(tmp_path)
    assert [times_read(), times_read()] == [1, 0]


def test_a_broken_model_does_not_block_other_clients(engine: Any) -> None:
    with short_home() as home:
        string_array(home / "models" / "broken" / "broken.gguf", 2**24)
        settle(home / "models")
        with (
            serving(home) as server,
            others_are_served(server, SLOWEST_S),
            ThreadPoolExecutor(8) as pool,
        ):
            asked = [pool.submit(_unknown, server, number) for number in range(24)]
            assert {each.result() for each in asked} == {404}


def _unknown(server: Serving, number: int) -> int:
    messages = [{"role": "user", "content": "hello"}]
    body = {"model": f"unknown{number}", "messages": messages, "prompt": "x", "input": "x"}
    paths = ("/v1/chat/completions", "/api/chat", "/api/embeddings", "/ollama/api/generate")
    with server.client() as api:
        return api.post(paths[number % len(paths)], json=body).status_code
