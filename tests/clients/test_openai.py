"""OpenAI's own client for Python, unmodified."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import openai
import pytest
from pydantic import BaseModel

from tests.clients.conftest import CHAT, EMBEDDING, TOOLED
from tests.clients.questions import ASKED, PARIS, TOO_LONG, TOOL, UNENDING
from tests.serving import Serving, wait_until

pytestmark = pytest.mark.more

SOON_S = 10.0


class City(BaseModel):
    """The form of an answer."""

    city: Literal["Paris"]
    river: Literal["Seine"]


SEINE = City(city="Paris", river="Seine")


@pytest.fixture
def client(server: Serving) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def asynchronous(server: Serving) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=CHAT, messages=ASKED)
    [choice] = answer.choices
    assert choice.message.content == PARIS
    assert (choice.message.role, choice.finish_reason) == ("assistant", "stop")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (11, 10)
    assert answer.object == "chat.completion"


def test_a_streamed_chat(client: openai.OpenAI) -> None:
    *chunks, last = client.chat.completions.create(
        model=CHAT, messages=ASKED, stream=True, stream_options={"include_usage": True}
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == PARIS
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert last.usage is not None
    assert last.usage.completion_tokens == 10
    assert last.choices == []
    assert len({chunk.id for chunk in (*chunks, last)}) == 1


def test_the_helper_for_streams(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model=CHAT, messages=ASKED) as stream:
        pieces = [event.delta for event in stream if event.type == "content.delta"]
        answer = stream.get_final_completion()
    assert "".join(pieces) == PARIS == answer.choices[0].message.content


def test_completions(client: openai.OpenAI) -> None:
    whole = client.completions.create(model=CHAT, prompt="Once upon a time", max_tokens=8)
    assert whole.choices[0].finish_reason == "length"
    assert whole.choices[0].text
    stream = client.completions.create(
        model=CHAT, prompt="Once upon a time", max_tokens=8, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text
    two = client.completions.create(model=CHAT, prompt=["One", "Two"], max_tokens=2, n=2)
    assert [choice.index for choice in two.choices] == [0, 1, 2, 3]


def test_embeddings(client: openai.OpenAI) -> None:
    """By default the client requests base64, and decodes it."""
    made = client.embeddings.create(model=EMBEDDING, input=["Hello", "Goodbye"])
    plain = client.embeddings.create(
        model=EMBEDDING, input=["Hello", "Goodbye"], encoding_format="float"
    )
    for one, other in zip(made.data, plain.data, strict=True):
        assert len(one.embedding) == 256
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
    assert made.data[0].embedding != made.data[1].embedding
    assert made.usage.prompt_tokens > 0


def test_models(client: openai.OpenAI) -> None:
    assert {model.id for model in client.models.list()} >= {"demo", CHAT, EMBEDDING, TOOLED}
    assert client.models.retrieve(CHAT).id == CHAT


def test_parsed_answers(client: openai.OpenAI) -> None:
    parsed = client.chat.completions.parse(model=CHAT, messages=ASKED, response_format=City)
    assert parsed.choices[0].message.parsed == SEINE
    schema: Any = {"name": "city", "schema": City.model_json_schema(), "strict": True}
    answer = client.chat.completions.create(
        model=CHAT,
        messages=ASKED,
        response_format={"type": "json_schema", "json_schema": schema},
    )
    assert json.loads(answer.choices[0].message.content or "") == SEINE.model_dump()


def test_tools(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": TOOLED, "messages": ASKED, "tools": [TOOL]}
    answer = client.chat.completions.create(**asked, tool_choice="required").choices[0]
    assert answer.finish_reason == "tool_calls"
    [call] = answer.message.tool_calls or ()
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == (
        "weather",
        {"city": "Paris"},
    )
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    history = [*ASKED, answer.message.model_dump(exclude_none=True), result]
    then = client.chat.completions.create(**asked | {"messages": history}, max_tokens=4)
    assert then.usage is not None
    assert then.usage.prompt_tokens > 11
    with client.chat.completions.stream(**asked, tool_choice="required") as stream:
        [streamed] = stream.get_final_completion().choices[0].message.tool_calls or ()
    assert streamed.function.arguments == call.function.arguments


async def test_all_of_it_asynchronously(server: Serving) -> None:
    async with asynchronous(server) as client:
        whole = await client.chat.completions.create(model=CHAT, messages=ASKED)
        assert whole.choices[0].message.content == PARIS
        stream = await client.chat.completions.create(model=CHAT, messages=ASKED, stream=True)
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(pieces) == PARIS
        text = await client.completions.create(model=CHAT, prompt="Once upon", max_tokens=2)
        assert text.usage is not None
        assert text.usage.completion_tokens == 2
        made = await client.embeddings.create(model=EMBEDDING, input="Hello")
        assert len(made.data[0].embedding) == 256
        assert CHAT in [model.id async for model in client.models.list()]
        parsed = await client.chat.completions.parse(
            model=CHAT, messages=ASKED, response_format=City
        )
        assert parsed.choices[0].message.parsed == SEINE
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="gpt-3", messages=ASKED)


def is_idle(api: httpx.Client) -> bool:
    health = api.get("/health").json()
    return bool(health["active"] == health["queued"] == 0)


def test_a_stream_closed_early(client: openai.OpenAI, api: httpx.Client) -> None:
    before = tokens_made(api)
    stream = client.completions.create(model=CHAT, prompt="Numbers:", stream=True, **UNENDING)
    assert next(iter(stream)).choices[0].text
    assert not is_idle(api)
    stream.close()
    wait_until(lambda: is_idle(api), SOON_S, "a free slot")
    assert 0 < tokens_made(api) - before < UNENDING["max_tokens"]


async def test_a_stream_left_early_asynchronously(server: Serving, api: httpx.Client) -> None:
    async with asynchronous(server) as client:
        stream = await client.completions.create(
            model=CHAT, prompt="Numbers:", stream=True, **UNENDING
        )
        async with stream:
            async for _ in stream:
                break
        wait_until(lambda: is_idle(api), SOON_S, "a free slot")


def tokens_made(api: httpx.Client) -> float:
    """How many tokens of answers the engine has generated so far."""
    metrics = api.get(f"/upstream/{CHAT}/metrics").text
    found = re.search(r"^llamacpp:tokens_predicted_total (\S+)$", metrics, re.MULTILINE)
    assert found, metrics
    return float(found[1])


def test_errors_have_their_own_classes(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-3", messages=ASKED)
    assert (missing.value.code, missing.value.type) == ("model_not_found", "not_found_error")
    assert "Available models: " in str(missing.value)
    with pytest.raises(openai.BadRequestError) as hot:
        client.chat.completions.create(model=CHAT, messages=ASKED, temperature=3)
    assert hot.value.param == "temperature"
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as long:
            client.chat.completions.create(model=CHAT, messages=TOO_LONG, stream=stream)
        assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="cannot call tools"):
        client.chat.completions.create(model=CHAT, messages=ASKED, tools=[TOOL])
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-3")
