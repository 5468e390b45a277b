"""Generate, chat and embeddings with the demo model, through a real server and engine."""

from __future__ import annotations

import math
import re
import uuid

import httpx
import pytest

from tests.api.events import post, stream
from tests.serving import Serving

FRANCE = "What is the capital of France?"
PARIS = "The capital of France is Paris."


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_chat_answers_and_counts(api: httpx.Client) -> None:
    answer = post(api, "/api/chat", model="demo", messages=ask(FRANCE), stream=False)
    assert answer["message"] == {"role": "assistant", "content": PARIS}
    assert answer["finish_reason"] == "stop"
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens"] > 3
    uuid.UUID(answer["session_id"])
    assert "truncated" not in answer


def test_a_chat_streams_by_default(api: httpx.Client) -> None:
    tokens, last = stream(api, "/api/chat", model="demo", messages=ask(FRANCE))
    assert len(tokens) > 2
    assert "".join(tokens) == last["full_text"] == PARIS
    assert last["token_count"] == last["usage"]["completion_tokens"]
    assert last["finish_reason"] == "stop"
    uuid.UUID(last["session_id"])


def test_generate_goes_on_from_the_prompt_as_it_is(api: httpx.Client) -> None:
    whole = post(api, "/api/generate", model="demo", prompt="Once upon a time", stream=False)
    assert whole["text"]
    assert not whole["text"].startswith("Once upon a time")
    tokens, last = stream(api, "/api/generate", model="demo", prompt="Once upon a time")
    assert "".join(tokens) == last["full_text"] == whole["text"]
    assert "session_id" not in last


def test_options_reach_the_engine(api: httpx.Client) -> None:
    short = post(
        api, "/api/chat", model="demo", messages=ask(FRANCE), stream=False,
        options={"max_tokens": 3},
    )  # fmt: skip
    assert short["usage"]["completion_tokens"] == 3
    assert short["finish_reason"] == "length"
    assert PARIS.startswith(short["message"]["content"])
    stopped = post(
        api, "/api/chat", model="demo", messages=ask(FRANCE), stream=False,
        options={"stop": [" is"]},
    )  # fmt: skip
    assert stopped["message"]["content"] == "The capital of France"
    assert stopped["finish_reason"] == "stop"


def test_the_same_seed_gives_the_same_answer(api: httpx.Client) -> None:
    def sample(seed: int) -> str:
        answer = post(
            api, "/api/generate", model="demo", prompt="The", stream=False,
            options={"temperature": 2, "seed": seed, "max_tokens": 30, "min_p": 0, "top_k": 0},
        )  # fmt: skip
        return str(answer["text"])

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


def test_an_answer_in_a_json_schema(api: httpx.Client) -> None:
    schema = {
        "type": "object",
        "properties": {"size": {"type": "integer", "maximum": 99}},
        "required": ["size"],
        "additionalProperties": False,
    }
    answer = post(
        api, "/api/generate", model="demo", prompt="A number:", stream=False, format=schema
    )
    assert re.fullmatch(r'\s*\{\s*"size"\s*:\s*-?\d+\s*\}\s*', answer["text"])


def test_a_last_assistant_message_is_continued(api: httpx.Client) -> None:
    messages = [*ask(FRANCE), {"role": "assistant", "content": "The capital of"}]
    answer = post(api, "/api/chat", model="demo", messages=messages, stream=False)
    assert answer["message"]["content"] == " France is Paris."


def test_a_session_remembers_for_both_styles_of_client(api: httpx.Client) -> None:
    first = post(api, "/api/chat", model="demo", messages=ask("My name is Tobias."), stream=False)
    session = first["session_id"]
    turn = ask("What is my name?")
    new_only = post(api, "/api/chat", model="demo", messages=turn, session_id=session, stream=False)
    assert "Tobias" in new_only["message"]["content"]
    assert new_only["session_id"] == session
    history = [*ask("My name is Tobias."), first["message"], *turn]
    resent = post(
        api, "/api/chat", model="demo", messages=history, session_id=session, stream=False
    )
    assert resent["message"] == new_only["message"]
    assert resent["usage"]["cached_tokens"] > 0


def test_a_session_id_of_the_clients_own(api: httpx.Client) -> None:
    answer = post(
        api, "/api/chat", model="demo", messages=ask("Hello"), session_id="me:1", stream=False
    )
    assert answer["session_id"] == "me:1"


def test_the_oldest_turns_give_way_when_a_conversation_grows_too_long(api: httpx.Client) -> None:
    filler = [
        message
        for number in range(150)
        for message in (
            {"role": "user", "content": f"Question {number} is about the number {number}?"},
            {"role": "assistant", "content": f"It is about {number}."},
        )
    ]
    messages = [{"role": "system", "content": "Be brief."}, *filler, *ask(FRANCE)]
    tokens, last = stream(api, "/api/chat", model="demo", messages=messages)
    assert last["truncated"] is True
    assert last["dropped_messages"] > 0
    assert last["dropped_messages"] % 2 == 0
    assert "".join(tokens)
    assert last["usage"]["prompt_tokens"] <= 2048


def test_characters_of_several_bytes_are_not_split(api: httpx.Client) -> None:
    tokens, last = stream(
        api, "/api/generate", model="demo", prompt="日本語 🙂", format={"enum": ["日本語🙂🚀é"]}
    )
    assert "".join(tokens) == last["full_text"] == '"日本語🙂🚀é"'
    assert not any("\ufffd" in token for token in tokens)


def test_embeddings_of_one_and_of_several_texts(api: httpx.Client) -> None:
    one = post(api, "/api/embeddings", model="demo", input="The cat sat on the mat")
    assert one["model"] == "demo"
    assert one["usage"]["prompt_tokens"] > 3
    assert math.isclose(sum(value**2 for value in one["embedding"]), 1, rel_tol=1e-3)
    texts = ["The cat sat on the mat", "How do I pull a model?"]
    several = post(api, "/api/embeddings", model="demo", input=texts)
    assert several["embeddings"][0] == pytest.approx(one["embedding"], abs=1e-3)
    assert several["embeddings"][1] != several["embeddings"][0]


def test_embedding_leaves_the_conversations_cache_alone(api: httpx.Client, server: Serving) -> None:
    first = post(api, "/api/chat", model="demo", messages=ask("Hello"), stream=False)
    post(api, "/api/embeddings", model="demo", input="something else")
    again = post(
        api, "/api/chat", model="demo", messages=ask(FRANCE),
        session_id=first["session_id"], stream=False,
    )  # fmt: skip
    assert again["usage"]["cached_tokens"] > 3
    roles = {each["role"] for each in api.get("/api/instances").json()["instances"]}
    assert roles == {"generate", "embed"}
    assert len(server.engines()) == 2


def test_headers(api: httpx.Client) -> None:
    with api.stream(
        "POST", "/api/chat", json={"model": "demo", "messages": ask("Hello")},
        headers={"X-Request-ID": "mine-1"},
    ) as answer:  # fmt: skip
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-accel-buffering"] == "no"
        assert answer.headers["x-request-id"] == "mine-1"
    plain = api.get("/health", headers={"X-Request-ID": "not sane!"})
    assert re.fullmatch(r"[0-9a-f]{32}", plain.headers["x-request-id"])
