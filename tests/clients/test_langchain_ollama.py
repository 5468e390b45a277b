"""LangChain's classes for Ollama."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.clients.conftest import CHAT, EMBEDDING, TOOLED
from tests.clients.questions import FRANCE, PARIS, TOOL
from tests.serving import Serving

pytestmark = pytest.mark.more


def chat(server: Serving, model: str = CHAT, **more: Any) -> Any:
    """Import LangChain here, because that is slow."""
    from langchain_ollama import ChatOllama

    return ChatOllama(base_url=f"{server.url}/ollama", model=model, **more)


def test_chats(server: Serving) -> None:
    model = chat(server, validate_model_on_init=True)
    answer = model.invoke([("system", "Be brief."), ("human", FRANCE)])
    assert answer.content == PARIS
    assert answer.usage_metadata["output_tokens"] == 10
    assert answer.response_metadata["done_reason"] == "stop"
    pieces = list(model.stream(FRANCE))
    assert len(pieces) > 3
    assert "".join(piece.content for piece in pieces) == PARIS
    assert [each.content for each in model.batch([FRANCE] * 3)] == [PARIS] * 3


async def test_asynchronous_chats(server: Serving) -> None:
    model = chat(server)
    assert (await model.ainvoke(FRANCE)).content == PARIS
    assert "".join([piece.content async for piece in model.astream(FRANCE)]) == PARIS


def test_a_loop_of_tools(server: Serving) -> None:
    from langchain_core.messages import HumanMessage, ToolMessage

    bound = chat(server, TOOLED, num_predict=128).bind_tools([TOOL])
    messages: list[Any] = [HumanMessage(FRANCE)]
    first = bound.invoke(messages)
    [call] = first.tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "Paris"})
    messages += [first, ToolMessage("It is sunny.", tool_call_id=call["id"], name="weather")]
    second = bound.invoke(messages)
    grown = second.usage_metadata["input_tokens"] - first.usage_metadata["input_tokens"]
    assert grown > 10
    first_piece, *rest = bound.stream([HumanMessage(FRANCE)])
    for piece in rest:
        first_piece += piece
    [call] = first_piece.tool_calls
    assert call["args"] == {"city": "Paris"}


def test_an_answer_in_a_format(server: Serving) -> None:
    schema = {"title": "N", "type": "object", "properties": {"n": {"enum": [7]}}, "required": ["n"]}
    answer = chat(server, format=schema).invoke("A number?")
    assert json.loads(answer.content) == {"n": 7}
    structured = chat(server).with_structured_output(schema, method="json_schema")
    assert structured.invoke("A number?") == {"n": 7}


def test_completions(server: Serving) -> None:
    from langchain_ollama import OllamaLLM

    model = OllamaLLM(base_url=f"{server.url}/ollama", model=CHAT)
    assert model.invoke(FRANCE) == PARIS
    assert "".join(model.stream(FRANCE)) == PARIS


def test_embeddings(server: Serving) -> None:
    from langchain_ollama import OllamaEmbeddings

    made = OllamaEmbeddings(base_url=f"{server.url}/ollama", model=EMBEDDING)
    one, other = made.embed_documents(["Hello", "Goodbye"])
    assert len(one) == len(other) == 256
    assert made.embed_query("Hello") == pytest.approx(one, abs=1e-3)
    assert one != other
