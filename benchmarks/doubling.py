"""Whether a request of twice the size takes twice the time, and how long it delays other clients.

python -m benchmarks.doubling [--only TEXT] [--part 2/4] [--json]
"""

from __future__ import annotations

import argparse
import base64
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from benchmarks.figures import Figure, collected, print_json, print_table
from benchmarks.probing import probing
from benchmarks.servers import myllm_server
from tests.serving import Serving

LIMIT = 16 * 2**20
"""The default bound on a body, in bytes."""
_SMALLEST = LIMIT // 2**6
_HEALTH_S = 0.05
# Four times the input takes linear work four times as long, and quadratic work sixteen times. Work
# that takes less than this at the largest size is too short for a quotient.
_FOUR_TIMES = 8.0
_SHORT_S = 0.2
_LONG_S = 1.0
_TIMEOUT_S = 300.0

Made = Callable[[int], Any]
"""Makes a value of about that many bytes of JSON."""


@dataclass(frozen=True)
class Case:
    """A body of any size for `path`; the answer may be a client error, but no server error."""

    path: str
    name: str
    body: Callable[[int], dict[str, Any]]


def text(size: int) -> str:
    return "word " * (size // 5)


def numbers(size: int) -> list[int]:
    return [300] * (size // 4)


def words(size: int) -> list[str]:
    return ["word"] * (size // 7)


def message(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content} | more


def turns(size: int) -> list[dict[str, Any]]:
    """Many short messages."""
    return [message(role, "x") for _ in range(size // 62) for role in ("user", "assistant")] + [
        message("user", "x")
    ]


def long_text(size: int) -> list[dict[str, Any]]:
    return [message("user", text(size))]


def quotes(size: int) -> list[dict[str, Any]]:
    """A text in which JSON escapes much, and which takes Python four bytes per character."""
    return [message("user", 'say "é😀"\n' * (size // 15))]


def parts(size: int) -> list[dict[str, Any]]:
    return [message("user", [{"type": "text", "text": "x"}] * (size // 27))]


def picture(size: int) -> list[dict[str, Any]]:
    url = "data:image/png;base64," + base64.b64encode(bytes(size * 3 // 4)).decode()
    return [message("user", [{"type": "image_url", "image_url": {"url": url}}])]


def calls(size: int) -> list[dict[str, Any]]:
    """Tool calls in OpenAI's form, with their results."""
    count = size // 180
    function = {"name": "f", "arguments": "{}"}
    made = [{"id": f"{n}", "type": "function", "function": function} for n in range(count)]
    results = [message("tool", "x", tool_call_id=f"{n}") for n in range(count)]
    return [message("user", "x"), message("assistant", "", tool_calls=made), *results]


def ollama_calls(size: int) -> list[dict[str, Any]]:
    """Tool calls in Ollama's form, whose results are matched by the function's name."""
    count = size // 110
    made = [{"function": {"name": f"f{n % 2}", "arguments": {}}} for n in range(count)]
    results = [message("tool", "x", tool_name="f1") for n in range(count)]
    return [message("user", "x"), message("assistant", "", tool_calls=made), *results]


def tools(size: int) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    function = {"name": "f", "parameters": schema}
    return {"tools": [{"type": "function", "function": function}] * (size // 120)}


def schema(size: int) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {f"p{n}": {"type": "string"} for n in range(size // 25)},
    }


def document(size: int) -> dict[str, Any]:
    return {"version": 1, "model": "demo", "title": "large", "messages": turns(size)}


_CHATS: dict[str, Made] = {"turns": turns, "a long text": long_text, "parts": parts}
_OPENAI: dict[str, Made] = _CHATS | {"quotes": quotes, "a picture": picture, "calls": calls}
_TEXTS: dict[str, Made] = {"a long text": text, "texts": words, "tokens": numbers}


def cases() -> Iterator[Case]:
    """Each endpoint of each dialect, with each kind of large input that it accepts."""

    def of(path: str, field: str, kinds: dict[str, Made], **more: Any) -> Iterator[Case]:
        for name, made in kinds.items():
            yield Case(path, name, lambda size, made=made: {field: made(size)} | more)

    chat, plain = {"stream": False, "max_tokens": 1}, {"max_tokens": 1, "stream": False}
    for path in ("/api/chat", "/v1/chat/completions", "/chat/completions"):
        yield from of(path, "messages", _OPENAI, model="demo", **chat)
        hello = {"model": "demo", "messages": [message("user", "x")]} | chat
        yield Case(path, "tools", lambda size, hello=hello: hello | tools(size))
        yield Case(path, "stop strings", lambda size, hello=hello: hello | {"stop": words(size)})
    yield from of("/api/generate", "prompt", {"a long text": text}, model="demo", **chat)
    for path in ("/v1/completions", "/completion"):
        yield from of(path, "prompt", _TEXTS, model="demo", **plain)
    yield from of("/v1/responses", "input", {"a long text": text, **_CHATS}, model="demo")
    anthropic = {"model": "demo", "max_tokens": 1}
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        yield from of(path, "messages", _CHATS, **anthropic)
    ollama: dict[str, Any] = {"model": "demo", "stream": False, "options": {"num_predict": 1}}
    chats = {"turns": turns, "a long text": long_text, "calls": ollama_calls}
    yield from of("/ollama/api/chat", "messages", chats, **ollama)
    yield from of("/ollama/api/generate", "prompt", {"a long text": text}, **ollama)
    yield from of("/ollama/api/generate", "format", {"a schema": schema}, prompt="x", **ollama)
    yield from of("/ollama/api/embed", "input", {"texts": words}, model="demo")
    for path in ("/api/embeddings", "/v1/embeddings"):
        yield from of(path, "input", _TEXTS, model="demo")
    yield from of("/embedding", "content", _TEXTS, model="demo")
    yield from of("/v1/rerank", "documents", {"texts": words}, model="demo", query="x")
    yield from of("/infill", "input_prefix", {"a long text": text}, model="demo", n_predict=1)
    yield from of("/tokenize", "content", {"a long text": text, "texts": words}, model="demo")
    yield from of("/detokenize", "tokens", {"tokens": numbers}, model="demo")
    yield from of("/apply-template", "messages", _CHATS, model="demo")
    yield Case("/api/sessions/import", "turns", document)


def sizes() -> list[int]:
    """Sizes, each twice the one before, up to a little less than the limit."""
    found, size = [], _SMALLEST
    while size <= LIMIT:
        found.append(size)
        size *= 2
    return [size * 15 // 16 for size in found]


def measure(only: str = "", part: int = 1, of: int = 1) -> Iterator[Figure]:
    """Measure each case whose path and name have `only` in them, or every `of`th of them."""
    wanted = [case for case in cases() if only in f"{case.path} {case.name}"]
    with myllm_server(max_body_mb=LIMIT / 2**20) as server:
        with server.client() as api:
            api.post("/api/models/demo/load").raise_for_status()
        for case in wanted[part - 1 :: of]:
            yield from _doubled(server, case)
        blocks = server.log.count("event loop blocked")
    yield Figure("event loop blocked for more than 100 ms", blocks, "", 0)


def _doubled(server: Serving, case: Case) -> list[Figure]:
    took, statuses, health = [], [], []
    with server.client(timeout=_TIMEOUT_S) as api:
        for size in sizes():
            body = orjson.dumps(case.body(size))
            with probing(server) as probes:
                seconds, status = _best_time(api, case, body)
            took.append(seconds)
            statuses.append(status)
            health.append(max(probes))
    name = f"{case.path}, {case.name}"
    times = ", ".join(f"{seconds:.2f}" for seconds in took)
    note = f"{times} s; {', '.join(map(str, dict.fromkeys(statuses)))}"
    growth = took[-1] / took[-3]
    bound = _FOUR_TIMES if took[-1] > _SHORT_S else None
    failed = sum(status >= 500 for status in statuses)
    return [
        Figure(f"{name}: four times the size", growth, "x", bound, note),
        Figure("  /health meanwhile, slowest", max(health), "s", _HEALTH_S, _largest(health)),
        *([Figure("  failures of the server", failed, "", 0)] if failed else []),
    ]


def _largest(health: list[float]) -> str:
    return ", ".join(f"{1000 * seconds:.0f}" for seconds in health) + " ms"


def _best_time(api: httpx.Client, case: Case, body: bytes) -> tuple[float, int]:
    """The better of two times, because other work on the machine slows one of them less. A request
    that takes long is sent once."""
    best, status = float("inf"), 0
    for _ in range(2):
        began = time.monotonic()
        answer = api.post(case.path, content=body, headers={"Content-Type": "application/json"})
        best, status = min(best, time.monotonic() - began), answer.status_code
        if best > _LONG_S:
            break
    return best, status


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cases whose path and name have this in them")
    parser.add_argument("--part", default="1/1", help="a part of them, such as 2/4")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    part, of = map(int, arguments.part.split("/"))
    figures = collected(measure(arguments.only, part, of))
    (print_json if arguments.json else print_table)(figures)
    sys.exit(0 if all(each.ok for each in figures) else 1)


if __name__ == "__main__":
    main()
