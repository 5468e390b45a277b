"""LangChain's classes for OpenAI."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel

from tests.clients.conftest import CHAT, EMBEDDING, TOOLED
from tests.clients.questions import FRANCE, PARIS, TOOL
from tests.serving import Serving

pytestmark = pytest.mark.more


class City(BaseModel):
    """The capital of a country."""

    city: Literal["Paris"]


def chat(server: Serving, model: str = CHAT, **more: Any) -> Any:
    """Import LangChain here, because that is slow."""
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(base_url=f"{server.url}/v1", api_key="none", model=model, **more)


def test_chats(server: Serving) -> None:
    model = chat(server)
    answer = model.invoke([("system", "Be brief."), ("human", FRANCE)])
    assert answer.content == PARIS
    assert answer.usage_metadata["output_tokens"] == 10
    assert answer.response_metadata["finish_reason"] == "stop"
    pieces = list(chat(server, stream_usage=True).stream(FRANCE))
    assert len(pieces) > 3
    assert "".join(piece.content for piece in pieces) == PARIS
    assert sum((piece.usage_metadata or {}).get("output_tokens", 0) for piece in pieces) == 10
    assert [each.content for each in model.batch([FRANCE] * 3)] == [PARIS] * 3


async def test_asynchronous_chats(server: Serving) -> None:
    model = chat(server)
    assert (await model.ainvoke(FRANCE)).content == PARIS
    assert "".join([piece.content async for piece in model.astream(FRANCE)]) == PARIS
    assert [each.content for each in await model.abatch([FRANCE] * 2)] == [PARIS] * 2


def test_structured_output(server: Serving) -> None:
    """With the engine's grammar, and with a required tool call."""
    for method, name in (("json_schema", CHAT), ("function_calling", TOOLED)):
        structured = chat(server, name).with_structured_output(City, method=method)
        assert structured.invoke(FRANCE) == City(city="Paris")


def test_tools(server: Serving) -> None:
    bound = chat(server, TOOLED).bind_tools([TOOL], tool_choice="weather")
    for answer in (bound.invoke(FRANCE), sum_of(bound.stream(FRANCE))):
        [call] = answer.tool_calls
        assert (call["name"], call["args"]) == ("weather", {"city": "Paris"})


def sum_of(pieces: Any) -> Any:
    """The whole message of a stream."""
    first, *rest = pieces
    for piece in rest:
        first += piece
    return first


def test_embeddings(server: Serving) -> None:
    """By default, LangChain would count tokens with OpenAI's tokenizer."""
    from langchain_openai import OpenAIEmbeddings

    made = OpenAIEmbeddings(
        base_url=f"{server.url}/v1",
        api_key="none",
        model=EMBEDDING,
        check_embedding_ctx_length=False,
    )
    one, other = made.embed_documents(["Hello", "Goodbye"])
    assert len(one) == len(other) == 256
    assert made.embed_query("Hello") == pytest.approx(one, abs=1e-3)
    assert one != other
