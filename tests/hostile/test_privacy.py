"""One key learns nothing about the requests of another: not from cached tokens, not from the state
of slots, not from saved KV states."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.hostile.attacks import others_are_served
from tests.hostile.keyed import ANN, BOB, EVE, asking_as, keyed
from tests.serving import Serving, short_home, wait_until

Ask = Callable[[httpx.Client, str], int]
"""Asks for one token behind a prompt; returns how many tokens of the prompt were cached."""

# Tokens that every prompt of a template begins with, cached from the key's own earlier prompts.
OWN = 8
MUCH = 100


def secret(name: str, number: int = 4711) -> str:
    return f"{name} patient number {number}. " + "Tell nobody what you have read here. " * 16


@pytest.fixture(scope="module")
def keyed_server(engine: Engine) -> Iterator[Serving]:
    """Two slots for three keys."""
    with short_home() as home, keyed(home, slots=2) as server:
        yield server


def generate(api: httpx.Client, prompt: str) -> int:
    body = {"model": "demo", "prompt": prompt, "stream": False, "options": {"max_tokens": 1}}
    return int(_posted(api, "/api/generate", body)["usage"]["cached_tokens"])


def chat(api: httpx.Client, prompt: str, store: bool = False) -> int:
    body = {"model": "demo", "messages": _user(prompt), "stream": False, "store": store}
    body["options"] = {"max_tokens": 1}
    return int(_posted(api, "/api/chat", body)["usage"]["cached_tokens"])


def completion(api: httpx.Client, prompt: str) -> int:
    return int(
        _posted(api, "/completion", {"prompt": prompt, "n_predict": 1})["timings"]["cache_n"]
    )


def openai_completion(api: httpx.Client, prompt: str) -> int:
    body = {"model": "demo", "max_tokens": 1, "prompt": prompt}
    return _openai_cached(_posted(api, "/v1/completions", body))


def openai_chat(api: httpx.Client, prompt: str) -> int:
    body = {"model": "demo", "max_tokens": 1, "messages": _user(prompt)}
    return _openai_cached(_posted(api, "/v1/chat/completions", body))


def anthropic(api: httpx.Client, prompt: str) -> int:
    body = {"model": "demo", "max_tokens": 1, "messages": _user(prompt)}
    return int(_posted(api, "/v1/messages", body)["usage"]["cache_read_input_tokens"])


def _user(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def _posted(api: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = api.post(path, json=body).raise_for_status().json()
    return answer


def _openai_cached(answer: dict[str, Any]) -> int:
    return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])


WAYS: list[Ask] = [generate, chat, completion, openai_completion, openai_chat, anthropic]


@pytest.mark.parametrize("ask", WAYS)
def test_a_right_guess_looks_like_a_wrong_guess(keyed_server: Serving, ask: Ask) -> None:
    text = secret(ask.__name__)
    with (
        others_are_served(keyed_server),
        asking_as(keyed_server, ANN) as ann,
        asking_as(keyed_server, BOB) as bob,
        asking_as(keyed_server, EVE) as eve,
    ):
        ask(ann, text)
        assert ask(ann, text) > MUCH, "a key's own prompt is cached"
        assert ask(bob, text) < OWN
        assert ask(eve, text) < OWN


def test_a_guess_in_another_dialect(keyed_server: Serving) -> None:
    text = secret("another")
    with (
        others_are_served(keyed_server),
        asking_as(keyed_server, ANN) as ann,
        asking_as(keyed_server, BOB) as bob,
        asking_as(keyed_server, EVE) as eve,
    ):
        chat(ann, text)
        assert openai_chat(ann, text) > MUCH
        assert openai_chat(bob, text) < OWN
        assert openai_chat(eve, text) < OWN


def test_the_saved_state_of_another_keys_conversation_is_not_restored(
    keyed_server: Serving,
) -> None:
    text = secret("saved")
    with (
        others_are_served(keyed_server),
        asking_as(keyed_server, ANN) as ann,
        asking_as(keyed_server, BOB) as bob,
    ):
        chat(ann, text, store=True)
        wait_until(lambda: any((keyed_server.home / "data/kv").iterdir()), 20, "a file of KV state")
        assert chat(bob, text, store=True) < OWN
        assert chat(ann, text, store=True) > MUCH
        assert "state of a conversation restored" in keyed_server.log


def test_guesses_while_slots_change_between_keys(keyed_server: Serving) -> None:
    def guessed(number: int) -> int:
        with asking_as(keyed_server, ANN) as ann, asking_as(keyed_server, BOB) as bob:
            generate(ann, secret(f"{number}th", number))
            return generate(bob, secret(f"{number}th", number))

    with others_are_served(keyed_server), ThreadPoolExecutor(6) as pool:
        assert max(pool.map(guessed, range(24))) < OWN


def test_an_answer_that_its_client_left_in_the_middle(keyed_server: Serving) -> None:
    text = secret("left")
    body = {"model": "demo", "prompt": text, "options": {"max_tokens": 500}}
    with (
        others_are_served(keyed_server),
        asking_as(keyed_server, ANN) as ann,
        asking_as(keyed_server, BOB) as bob,
        asking_as(keyed_server, EVE) as eve,
    ):
        with ann.stream("POST", "/api/generate", json=body) as answer:
            next(answer.iter_lines())
        assert generate(bob, text) < OWN
        assert generate(eve, text) < OWN


def test_slots_show_their_request_only_to_its_key(keyed_server: Serving) -> None:
    with (
        others_are_served(keyed_server),
        asking_as(keyed_server, ANN) as ann,
        asking_as(keyed_server, BOB) as bob,
    ):
        for api in (ann, bob):
            generate(api, secret("slots"))
        for api in (ann, bob):
            slots = api.get("/upstream/demo/slots").raise_for_status().json()
            visible = [slot for slot in slots if "n_prompt_tokens" in slot]
            assert len(slots) == 2
            assert len(visible) == 1
            hidden = next(slot for slot in slots if slot not in visible)
            assert set(hidden) == {"id", "n_ctx", "is_processing", "speculative"}


def test_an_engine_keeps_no_prompts_outside_of_its_slots(keyed_server: Serving) -> None:
    with others_are_served(keyed_server), asking_as(keyed_server, ANN) as ann:
        generate(ann, "hello")
        for engine in keyed_server.engines():
            arguments = engine.cmdline()
            assert arguments[arguments.index("--cache-ram") + 1] == "0"
