"""Requests in every dialect, and the token counts that each client is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.encoders import write_bert, write_gemma2
from tests.tooled import TOOLS, add_model

Events = Sequence[Mapping[str, Any]]


def add_models(models: Path) -> None:
    """Add a model of each kind that is asked, besides `demo`."""
    write_bert(models / "bert/bert.gguf")
    write_bert(models / "ranker/bert.gguf", rank=True)
    write_gemma2(models / "gemma/gemma.gguf")
    add_model(models, "tooled", TOOLS)


class Told(NamedTuple):
    """What a client is told of the tokens; None where its dialect says nothing."""

    prompt: int | None
    cached: int | None
    generated: int | None


@dataclass(frozen=True)
class Ask:
    """A request, and how to read the counts out of its answer: of one event, or of several."""

    path: str
    body: Mapping[str, Any]
    told: Callable[[Events], Told]
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.path} {json.dumps(self.body)[:200]}"


def ask(api: httpx.Client, asked: Ask, model: str, request_id: str) -> Told:
    """Send a request and return the counts of its answer, which must be a good one."""
    told, text = try_to_ask(api, asked, model, {"x-request-id": request_id})
    assert told is not None, text
    return told


def try_to_ask(
    api: httpx.Client, asked: Ask, model: str, headers: Mapping[str, str]
) -> tuple[Told | None, str]:
    """Send a request; return the counts of its answer, or None if it has failed, and its text."""
    body = {**asked.body, "model": model}
    answer = api.post(asked.path, json=body, headers={**headers, **asked.headers})
    text = answer.text
    if answer.status_code != 200:
        return None, text
    kind = answer.headers["content-type"]
    if kind.startswith("text/event-stream"):
        lines = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
        events = [json.loads(line) for line in lines if line != "[DONE]"]
    elif kind.startswith("application/x-ndjson"):
        events = [json.loads(line) for line in text.splitlines()]
    else:
        whole = json.loads(text)
        events = whole if isinstance(whole, list) else [whole]
    failed = events[-1].get("type") == "response.failed" or events[-1].get("error")
    return None if failed else asked.told(events), text


def openai(events: Events) -> Told:
    usage = events[-1].get("usage")
    if usage is None:
        return Told(None, None, None)
    details = usage.get("prompt_tokens_details") or {}
    cached = details.get("cached_tokens", usage.get("cached_tokens"))
    return Told(usage["prompt_tokens"], cached, usage.get("completion_tokens", 0))


def responses(events: Events) -> Told:
    usage = events[-1].get("response", events[-1])["usage"]
    cached = usage["input_tokens_details"]["cached_tokens"]
    return Told(usage["input_tokens"], cached, usage["output_tokens"])


def anthropic(events: Events) -> Told:
    usage = [each["usage"] for each in events if each.get("usage")][-1]
    cached = usage["cache_read_input_tokens"]
    return Told(usage["input_tokens"] + cached, cached, usage["output_tokens"])


def ollama(events: Events) -> Told:
    last = events[-1]
    return Told(last["prompt_eval_count"], None, last.get("eval_count", 0))


def llama(events: Events) -> Told:
    """llama.cpp's own form; several choices share their prompt, which is in each of them."""
    ends = [each for each in events if each["stop"]]
    cached = None if len(ends) > 1 else ends[0]["timings"]["cache_n"]
    generated = sum(each["tokens_predicted"] for each in ends)
    return Told(ends[0]["tokens_evaluated"], cached, generated)


def nothing(events: Events) -> Told:
    return Told(None, None, None)


def questions(text: str, tokens: int) -> list[Ask]:
    """`text` as a question in every dialect, whole and streamed, with answers of `tokens`."""
    messages = [{"role": "user", "content": text}]
    told = {"stream_options": {"include_usage": True}}
    chat, prompt = {"messages": messages}, {"prompt": text}
    short, ours = {"max_tokens": tokens}, {"options": {"max_tokens": tokens}}
    theirs = {"options": {"num_predict": tokens}}
    made: list[Ask] = []
    for stream in ({"stream": True}, {"stream": False}):
        made += [
            Ask("/api/generate", {**prompt, **ours, **stream}, openai),
            Ask("/api/chat", {**chat, **ours, **stream}, openai),
            Ask("/api/chat", {**chat, **ours, **stream, "store": False}, openai),
            Ask("/v1/chat/completions", {**chat, **short, **stream}, openai),
            Ask("/v1/chat/completions", {**chat, **short, **stream, **told, "n": 3}, openai),
            Ask("/v1/completions", {**prompt, **short, **stream}, openai),
            Ask(
                "/v1/completions",
                {"prompt": [text, text + "?"], "n": 2, **short, **stream, **told},
                openai,
            ),
            Ask("/v1/completions", {**prompt, **short, **stream, **told, "echo": True}, openai),
            Ask("/v1/responses", {"input": text, "max_output_tokens": tokens, **stream}, responses),
            Ask("/v1/messages", {**chat, **short, **stream}, anthropic),
            Ask("/ollama/api/chat", {**chat, **theirs, **stream}, ollama),
            Ask("/ollama/api/generate", {**prompt, **theirs, **stream}, ollama),
            Ask("/ollama/api/generate", {**prompt, **theirs, **stream, "raw": True}, ollama),
            Ask("/completion", {**prompt, "n_predict": tokens, **stream}, llama),
            Ask("/completion", {**prompt, "n_predict": tokens, **stream, "n_cmpl": 2}, llama),
            Ask("/chat/completions", {**chat, **short, **stream, **told}, openai),
        ]
    return made


def infills(tokens: int) -> list[Ask]:
    """Text between two texts, in the three dialects that have it."""
    told = {"stream_options": {"include_usage": True}, "max_tokens": tokens}
    openais = {"prompt": "def ", "suffix": "()", **told}
    ollamas = {"prompt": "def ", "suffix": "()", "options": {"num_predict": tokens}}
    llamas = {"input_prefix": "def ", "input_suffix": "()", "n_predict": tokens}
    return [
        made
        for stream in ({"stream": True}, {"stream": False})
        for made in (
            Ask("/v1/completions", {**openais, **stream}, openai),
            Ask("/ollama/api/generate", {**ollamas, **stream}, ollama),
            Ask("/infill", {**llamas, **stream}, llama),
        )
    ]


def embeddings(texts: Sequence[str]) -> list[Ask]:
    """Vectors of texts, in every form."""
    return [
        Ask("/v1/embeddings", {"input": texts}, openai),
        Ask("/api/embeddings", {"input": texts}, openai),
        Ask("/api/embeddings", {"input": texts[0]}, openai),
        Ask("/ollama/api/embed", {"input": texts}, ollama),
        Ask("/ollama/api/embeddings", {"prompt": texts[0]}, nothing),
        Ask("/embedding", {"content": texts}, nothing),
    ]


def rankings(query: str, texts: Sequence[str]) -> list[Ask]:
    """Scores of texts, in every form."""
    return [
        Ask("/v1/rerank", {"query": query, "documents": texts}, openai),
        Ask("/rerank", {"query": query, "documents": texts, "top_n": 1}, openai),
        Ask("/rerank", {"query": query, "texts": texts}, nothing),
    ]
