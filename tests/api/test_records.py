"""The record of a request has the token counts that its client is told, in every dialect."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.api.askers import (
    Ask,
    Told,
    add_models,
    ask,
    embeddings,
    infills,
    openai,
    questions,
    rankings,
)
from tests.api.events import post
from tests.ggufs import write_model
from tests.projectors import wav, write_projector
from tests.recording_server import record_of
from tests.serving import Serving, serving, short_home
from tests.tooled import THOUGHTS, add_model

QUESTION = "What is the capital of France?"
TEXTS = ["a dog barks", "a cat"]
ALL = questions(QUESTION, 6)
_numbers = itertools.count()


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as home:
        models = home / "models"
        add_models(models)
        add_model(models, "thinking", THOUGHTS)
        write_model(models / "ear/ear.gguf")
        write_projector(models / "ear/mmproj.gguf", sees=False, hears=True)
        with serving(home, module="tests.recording_server", threads=1, slots=4) as running:
            yield running


def recorded(
    server: Serving, api: httpx.Client, asked: Ask, model: str
) -> tuple[Told, dict[str, Any]]:
    """Ask, and return the counts that the client is told, with the record of its request."""
    request_id = f"asked-{next(_numbers)}"
    told = ask(api, asked, model, request_id)
    record = record_of(server, request_id)
    assert record["model"].split()[0] == model
    return told, record


def check(told: Told, record: dict[str, Any]) -> None:
    pairs = [
        (told.prompt, record["prompt_tokens"]),
        (told.cached, record["cached_tokens"]),
        (told.generated, record["generated_tokens"]),
    ]
    for client, server in pairs:
        assert client in (None, server), (told, record)
    assert record["prompt_tokens"] > 0
    assert 0 <= record["cached_tokens"] <= record["prompt_tokens"]


@pytest.mark.parametrize("asked", ALL, ids=str)
def test_an_answer(server: Serving, api: httpx.Client, asked: Ask) -> None:
    told, record = recorded(server, api, asked, "demo")
    check(told, record)
    assert record["finish_reason"] in ("length", "stop")
    assert record["generated_tokens"] > 0
    assert record["granted_at"] < record["first_token_at"] <= record["last_token_at"]
    assert record["gaps_s"] <= record["tickets"] * (record["last_token_at"] - record["granted_at"])


def test_a_stream_without_usage_counts_as_one_with_it(server: Serving, api: httpx.Client) -> None:
    for path, body in [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": QUESTION}]}),
        ("/v1/completions", {"prompt": QUESTION}),
    ]:
        same = {**body, "max_tokens": 7, "seed": 1, "temperature": 0, "stream": True}
        ends = [
            recorded(server, api, Ask(path, {**same, **more}, lambda _: Told(1, 1, 1)), "demo")[1]
            for more in ({}, {"stream_options": {"include_usage": True}})
        ]
        counts = [(each["prompt_tokens"], each["generated_tokens"]) for each in ends]
        assert counts[0] == counts[1]
        assert counts[0][1] == 7


@pytest.mark.parametrize("asked", infills(5), ids=str)
def test_an_infill(server: Serving, api: httpx.Client, asked: Ask) -> None:
    check(*recorded(server, api, asked, "gemma"))


@pytest.mark.parametrize("asked", embeddings(TEXTS), ids=str)
def test_embeddings(server: Serving, api: httpx.Client, asked: Ask) -> None:
    told, record = recorded(server, api, asked, "bert")
    check(told, record)
    assert (record["generated_tokens"], record["finish_reason"]) == (0, None)


def test_embeddings_in_batches(server: Serving, api: httpx.Client) -> None:
    told, record = recorded(server, api, embeddings(["cat"] * 200)[0], "bert")
    check(told, record)
    assert record["tickets"] > 1


@pytest.mark.parametrize("asked", rankings("what is a cat", TEXTS), ids=str)
def test_scores(server: Serving, api: httpx.Client, asked: Ask) -> None:
    check(*recorded(server, api, asked, "ranker"))


@pytest.mark.parametrize("model", ["tooled", "thinking"])
def test_tools_and_thoughts(server: Serving, api: httpx.Client, model: str) -> None:
    tool = {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}
    offered = {"tools": [{"type": "function", "function": tool}]} if model == "tooled" else {}
    for asked in questions(QUESTION, 20):
        if asked.path not in ("/api/chat", "/v1/chat/completions", "/ollama/api/chat"):
            continue
        check(*recorded(server, api, Ask(asked.path, {**asked.body, **offered}, asked.told), model))


def test_a_recording(server: Serving, api: httpx.Client) -> None:
    answer = api.post(
        "/v1/audio/transcriptions",
        data={"model": "ear"},
        files={"file": ("a.wav", wav(300), "audio/wav")},
        headers={"x-request-id": "heard"},
    )
    usage, record = answer.json()["usage"], record_of(server, "heard")
    assert usage["input_tokens"] == record["prompt_tokens"] > 0
    assert usage["output_tokens"] == record["generated_tokens"] > 0


def test_what_was_left_out_of_a_conversation(server: Serving, api: httpx.Client) -> None:
    said = {"role": "assistant", "content": "word " * 300}
    messages = [{"role": "user", "content": "word " * 300}, said] * 4
    messages.append({"role": "user", "content": QUESTION})
    asked = Ask("/api/chat", {"messages": messages, "stream": False}, lambda each: each[0])
    whole, record = recorded(server, api, asked, "demo")
    assert record["left_out"] == whole["dropped_messages"] > 0


def test_a_query_is_no_request_for_an_answer(server: Serving, api: httpx.Client) -> None:
    body = {"content": "How many tokens?", "model": "demo"}
    assert api.post("/tokenize", json=body, headers={"x-request-id": "counted"}).status_code == 200
    record = record_of(server, "counted")
    assert (record["tickets"], record["prompt_tokens"], record["model"]) == (0, 0, "demo")


def test_a_failed_request_has_no_tokens(server: Serving, api: httpx.Client) -> None:
    body = {"model": "bert", "input": ["cat"] * 100 + ["a" * 200]}
    failed = api.post("/v1/embeddings", json=body, headers={"x-request-id": "failed"})
    assert failed.status_code == 400
    record = record_of(server, "failed")
    assert record["has_failed"]
    assert record["prompt_tokens"] == 0


def test_a_model_that_does_not_exist_is_in_no_record(server: Serving, api: httpx.Client) -> None:
    body = {"model": "no-such-model", "prompt": "a"}
    answer = api.post("/api/generate", json=body, headers={"x-request-id": "unknown"})
    assert answer.status_code == 404
    assert record_of(server, "unknown")["model"] is None


@pytest.mark.parametrize(
    "asked",
    [each for each in questions("Tell me a long story.", 400) if each.body["stream"]],
    ids=str,
)
def test_a_client_that_leaves_pays_for_what_came(
    server: Serving, api: httpx.Client, asked: Ask
) -> None:
    request_id, lines = f"left-{next(_numbers)}", 0
    body = {**asked.body, "model": "demo"}
    with api.stream("POST", asked.path, json=body, headers={"x-request-id": request_id}) as answer:
        for line in answer.iter_lines():
            lines += bool(line)
            if lines == 12:
                break
    record = record_of(server, request_id)
    assert not record["has_failed"]
    assert record["generated_tokens"] > 0
    assert record["prompt_tokens"] > 0


def test_the_times_between_tokens(server: Serving, api: httpx.Client) -> None:
    body = {"prompt": "Count to one hundred.", "options": {"max_tokens": 200}}
    told, record = recorded(server, api, Ask("/api/generate", body, openai), "demo")
    assert told.generated is not None
    assert 10 < sum(record["gaps"]) <= told.generated
    written_s = record["last_token_at"] - record["first_token_at"]
    assert 0 < record["gaps_s"] <= written_s + 0.1


@pytest.mark.parametrize("asked", questions("Count to one hundred.", 120), ids=str)
def test_an_answer_of_two_engines_counts_once(
    server: Serving, api: httpx.Client, asked: Ask
) -> None:
    post(api, "/api/models/demo/load")

    def kill() -> None:
        time.sleep(0.03)
        for engine in server.engines():
            if "demo" in " ".join(engine.cmdline()):
                engine.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    told, record = recorded(server, api, asked, "demo")
    killer.join()
    check(told, record)
