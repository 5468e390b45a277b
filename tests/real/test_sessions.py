"""A conversation with a trained model continues from its KV state after its engine has ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.api.events import post
from tests.real.questions import ONE_THREAD, chat
from tests.real_models import SMOLLM2, link_real_model
from tests.serving import Serving, serving

STORY = (
    "My name is Adaora and my dog is called Biscuit. Please remember both. "
    + "We walk along the river every morning, past the mill and the old bridge. " * 20
    + "Say in one short sentence that you have understood."
)
QUESTION = "What is my dog called?"


def begin(api: httpx.Client) -> int:
    """Make a first turn long enough to be saved; return how many tokens its slot then holds."""
    usage = chat(api, STORY, session_id="walk")["usage"]
    assert (usage["cached_tokens"], usage["prompt_tokens"] > 300) == (0, True)
    return int(usage["total_tokens"])


def goes_on(api: httpx.Client, held: int) -> str:
    """Make the next turn, check that the engine read only its new tokens, and return the answer."""
    answer = chat(api, QUESTION, session_id="walk")
    usage = answer["usage"]
    # The engine sent the last token of the answer, but did not compute its KV state.
    assert held - 2 <= usage["cached_tokens"] <= held, usage
    assert usage["prompt_tokens"] - usage["cached_tokens"] < 40, usage
    return str(answer["message"]["content"])


def unload(api: httpx.Client) -> None:
    post(api, f"/api/models/{SMOLLM2}/unload")


def evict(api: httpx.Client) -> None:
    """Evict the model by loading another; only one engine may run."""
    chat(api, "Hello!", 4, model="demo")
    running = api.get("/api/instances").json()["instances"]
    assert [each["model"] for each in running if each["state"] == "ready"] == ["demo"]


@pytest.mark.parametrize("away", [unload, evict])
def test_a_session_survives_its_engine(
    away: Callable[[httpx.Client], None], engine: Engine, home: Path
) -> None:
    link_real_model(home / "models", SMOLLM2)
    with serving(home, max_loaded_models=1, **ONE_THREAD) as server, server.client() as api:
        held = begin(api)
        away(api)
        assert "Biscuit" in goes_on(api, held)


def test_a_session_survives_a_restart_of_the_server(engine: Engine, home: Path) -> None:
    link_real_model(home / "models", SMOLLM2)
    with serving(home, **ONE_THREAD) as server, server.client() as api:
        held = begin(api)
    with serving(home, **ONE_THREAD) as server, server.client() as api:
        assert "Biscuit" in goes_on(api, held)


@pytest.mark.more
def test_a_long_chat_is_trimmed_and_stays_sensible(engine: Engine, home: Path) -> None:
    link_real_model(home / "models", SMOLLM2)
    dropped: list[int] = []
    with serving(home, context_size=768, **ONE_THREAD) as server, server.client() as api:
        for turn in range(24):
            answer = one_more(api, turn)
            assert answer["usage"]["total_tokens"] <= 768
            assert answer["message"]["content"].strip()
            dropped.append(answer.get("dropped_messages", 0))
            assert answer.get("truncated", False) == (dropped[-1] > 0)
        stored = api.get("/api/sessions/long").json()["messages"]
    assert dropped[0] == 0 < dropped[-1]
    assert dropped == sorted(dropped)
    assert len(stored) == 1 + 2 * 24, (
        "the store must keep every message, including those left out of prompts"
    )


def one_more(api: httpx.Client, turn: int) -> dict[str, Any]:
    """Make one of many turns of some sixty tokens; the first has a system message."""
    text = f"Here is number {turn}: " + "a sunny day by the river. " * 6 + "Say one word about it."
    messages = [{"role": "user", "content": text}]
    if turn == 0:
        messages.insert(0, {"role": "system", "content": "You answer with one word."})
    return chat(api, text, 16, session_id="long", messages=messages)


def test_the_helpers_server_has_what_it_says(server: Serving, api: httpx.Client) -> None:
    model = api.get(f"/api/models/{SMOLLM2}").json()
    assert (model["architecture"], model["quantization"]) == ("llama", "Q4_1")
