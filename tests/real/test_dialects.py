"""Each dialect answers token by token as llama-server does on its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from benchmarks.servers import bare_engine
from tests.api.events import post, stream
from tests.real.questions import BEGINNING, GREEDY, MAX_TOKENS, QUESTIONS, conversation
from tests.real_models import SMOLLM2
from tests.serving import Serving

Ask = Callable[[httpx.Client, str], str]


@pytest.fixture(scope="module")
def direct(server: Serving) -> Iterator[httpx.Client]:
    """A separate llama-server with the arguments that MyLLM gave SmolLM2's engine."""
    with server.client() as api:
        post(api, f"/api/models/{SMOLLM2}/load")
    [engine] = [each for each in server.engines() if SMOLLM2 in each.cmdline()]
    with bare_engine(engine.cmdline()) as alone, alone.client() as client:
        yield client


def native(api: httpx.Client, question: str) -> str:
    body = {"model": SMOLLM2, "messages": conversation(question), "stream": False}
    answer = post(api, "/api/chat", **body, options=GREEDY | {"max_tokens": MAX_TOKENS})
    return str(answer["message"]["content"])


def native_stream(api: httpx.Client, question: str) -> str:
    body = {"model": SMOLLM2, "messages": conversation(question)}
    options = GREEDY | {"max_tokens": MAX_TOKENS}
    tokens, last = stream(api, "/api/chat", **body, options=options)
    assert "".join(tokens) == last["full_text"]
    return str(last["full_text"])


def openai(api: httpx.Client, question: str) -> str:
    body = {"model": SMOLLM2, "messages": conversation(question), "temperature": 0}
    answer = post(api, "/v1/chat/completions", **body, max_tokens=MAX_TOKENS)
    return str(answer["choices"][0]["message"]["content"])


def responses(api: httpx.Client, question: str) -> str:
    body = {"model": SMOLLM2, "input": question, "temperature": 0, "store": False}
    answer = post(api, "/v1/responses", **body, max_output_tokens=MAX_TOKENS)
    return str(answer["output"][0]["content"][0]["text"])


def anthropic(api: httpx.Client, question: str) -> str:
    body = {"model": SMOLLM2, "messages": conversation(question), "temperature": 0}
    answer = post(api, "/v1/messages", **body, max_tokens=MAX_TOKENS)
    return str(answer["content"][0]["text"])


def ollama_chat(api: httpx.Client, question: str) -> str:
    body = {"model": SMOLLM2, "messages": conversation(question), "stream": False}
    options = GREEDY | {"num_predict": MAX_TOKENS}
    return str(post(api, "/ollama/api/chat", **body, options=options)["message"]["content"])


def ollama_prompt(api: httpx.Client, question: str) -> str:
    body = {"model": SMOLLM2, "prompt": question, "stream": False}
    options = GREEDY | {"num_predict": MAX_TOKENS}
    return str(post(api, "/ollama/api/generate", **body, options=options)["response"])


CHATS = (native, native_stream, openai, responses, anthropic, ollama_chat, ollama_prompt)


@pytest.mark.parametrize("ask", CHATS)
@pytest.mark.parametrize("question", QUESTIONS[:2])
def test_a_chat_is_answered_as_by_llama_server(
    ask: Ask, question: str, api: httpx.Client, direct: httpx.Client
) -> None:
    assert ask(api, question) == openai(direct, question) != ""


def directly(direct: httpx.Client, **fields: Any) -> dict[str, Any]:
    """llama-server's completion of BEGINNING, with the ids of its tokens."""
    body = {"prompt": BEGINNING, "n_predict": MAX_TOKENS, "return_tokens": True} | GREEDY | fields
    answer: dict[str, Any] = post(direct, "/completion", **body)
    assert len(answer["tokens"]) == MAX_TOKENS
    return answer


def test_a_prompt_is_completed_as_by_llama_server(api: httpx.Client, direct: httpx.Client) -> None:
    expected = directly(direct)["content"]
    body: dict[str, Any] = {"model": SMOLLM2, "prompt": BEGINNING, "stream": False}
    options = GREEDY | {"max_tokens": MAX_TOKENS}
    assert post(api, "/api/generate", **body, options=options)["text"] == expected
    raw = {"raw": True, "options": GREEDY | {"num_predict": MAX_TOKENS}}
    assert post(api, "/ollama/api/generate", **body, **raw)["response"] == expected


def test_llama_cpps_own_path_gives_the_same_ids(api: httpx.Client, direct: httpx.Client) -> None:
    mine, theirs = directly(api, model=SMOLLM2), directly(direct)
    assert (mine["content"], mine["tokens"]) == (theirs["content"], theirs["tokens"])


def test_openais_completion_has_the_same_tokens(api: httpx.Client, direct: httpx.Client) -> None:
    body: dict[str, Any] = {"prompt": BEGINNING, "max_tokens": MAX_TOKENS, "temperature": 0}
    mine, theirs = (
        post(each, "/v1/completions", **body, model=SMOLLM2, logprobs=1)["choices"][0]
        for each in (api, direct)
    )
    assert mine["text"] == theirs["text"] != ""
    tokens = [[token["id"] for token in each["logprobs"]["content"]] for each in (mine, theirs)]
    assert tokens[0] == tokens[1] == directly(direct)["tokens"]
