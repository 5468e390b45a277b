"""Answers of a trained model: with a schema, twenty at once, and across twenty killed engines."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.api.events import parse, post, stream
from tests.real.questions import GREEDY, MAX_TOKENS, QUESTIONS, chat, conversation
from tests.real_models import SMOLLM2
from tests.serving import Serving

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "likes": {
            "type": "array",
            "items": {"enum": ["tea", "music", "rain"]},
            "minItems": 1,
            "maxItems": 3,
        },
    },
    "required": ["name", "age", "likes"],
    "additionalProperties": False,
}
PERSON = "Invent a person: name, age, and what they like. Answer in JSON."


def check_person(text: str) -> None:
    """Check that `text` matches SCHEMA."""
    person = json.loads(text)
    assert set(person) == {"name", "age", "likes"}
    assert isinstance(person["name"], str)
    assert len(person["name"]) <= 20
    assert person["age"] in range(121)
    assert 1 <= len(person["likes"]) <= 3
    assert set(person["likes"]) <= {"tea", "music", "rain"}


def test_an_answer_fits_its_schema(api: httpx.Client) -> None:
    check_person(chat(api, PERSON, 100, format=SCHEMA)["message"]["content"])
    wanted = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}
    body = {"model": SMOLLM2, "messages": conversation(PERSON), "temperature": 0.8, "seed": 7}
    answer = post(api, "/v1/chat/completions", **body, max_tokens=100, response_format=wanted)
    assert answer["choices"][0]["finish_reason"] == "stop"
    check_person(answer["choices"][0]["message"]["content"])


def test_twenty_streams_at_once_equal_the_answers_alone(server: Serving, api: httpx.Client) -> None:
    alone = {question: chat(api, question)["message"]["content"] for question in QUESTIONS}

    def ask(number: int) -> tuple[str, dict[str, Any]]:
        question = QUESTIONS[number % len(QUESTIONS)]
        body = {"model": SMOLLM2, "messages": conversation(question)}
        with server.client(timeout=150) as client:
            options = GREEDY | {"max_tokens": MAX_TOKENS}
            tokens, last = stream(client, "/api/chat", **body, options=options)
        assert "".join(tokens) == last["full_text"]
        return question, last

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(ask, range(20)))
    for question, last in answers:
        assert last["full_text"] == alone[question]
        assert last["usage"]["completion_tokens"] == last["token_count"]
        assert last["finish_reason"] in ("stop", "length")
    assert len({last["session_id"] for _, last in answers}) == 20


KILLS = 20
LONG = 80
TOPICS = ("a lighthouse", "bread", "the moon", "a violin", "winter")


@pytest.mark.more
@pytest.mark.timeout(600)
def test_answers_outlive_twenty_kills(server: Serving, api: httpx.Client) -> None:
    """Each answer is whole, and keeps the text sent before the kill. An answer repeated from its
    start, as after the first kills, is the same; one resumed in the middle may continue
    differently. The test prints how often."""
    asks = [f"Tell me a short story about {topic}." for topic in TOPICS]
    undisturbed = {ask: chat(api, ask, LONG) for ask in asks}
    equal = 0
    for number in range(KILLS):
        ask = asks[number % len(asks)]
        expected = undisturbed[ask]
        cut, last = killed_in_the_middle(server, api, ask, after=4 + 8 * number)
        assert last["full_text"].startswith(cut)
        assert last["finish_reason"] in ("stop", "length")
        assert last["usage"]["prompt_tokens"] == expected["usage"]["prompt_tokens"]
        same = last["full_text"] == expected["message"]["content"]
        print(f"after {len(cut)} characters: {'equal' if same else 'continued differently'}")
        equal += same
    print(f"{equal} of {KILLS} answers were equal")
    assert equal > 0


def killed_in_the_middle(
    server: Serving, api: httpx.Client, question: str, after: int
) -> tuple[str, dict[str, Any]]:
    """Kill the engine after `after` characters; return the text before that, and the last event."""
    options = GREEDY | {"max_tokens": LONG}
    body = {"model": SMOLLM2, "messages": conversation(question), "options": options}
    text, cut, last = "", "", {}
    with api.stream("POST", "/api/chat", json=body) as answer:
        for line in answer.iter_lines():
            if not line.startswith("data: "):
                continue
            event = parse(line)
            if event["done"]:
                last = event
                break
            text += event["token"]
            if len(text) >= after and not cut:
                cut = text
                kill_engine(server)
    assert cut, f"the answer ended too early: {text!r}"
    assert "error" not in last, last
    assert last["full_text"] == text
    return cut, last


def kill_engine(server: Serving) -> None:
    [engine] = [each for each in server.engines() if SMOLLM2 in each.cmdline()]
    os.kill(engine.pid, signal.SIGKILL)
