"""Measure what it costs the gateway to normalize an agent's history, in each dialect.

    python -m benchmarks.normalizing [--json] [--turns N]

The history has about 20,000 tokens: a system prompt, questions, thoughts, calls of tools with their
results, and the question of one more turn. It is converted from the dialect's own form, repaired,
and fitted to a template that accepts everything, and to one that accepts little (Mistral's). All
of it runs in this process, without a server. Exits 1 when a bound is missed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any, Final, cast

import orjson

from benchmarks.figures import Figure, median_of, print_json, print_table
from myllm.api.anthropic.schemas import MessagesRequest
from myllm.api.anthropic.translate import messages_of as of_anthropic
from myllm.api.native.schemas import ChatRequest
from myllm.api.ollama.schemas import OllamaChatRequest
from myllm.api.ollama.translate import messages_of as of_ollama
from myllm.api.openai.responses_items import messages_of as of_responses
from myllm.api.openai.responses_schemas import ResponsesRequest
from myllm.api.openai.responses_tools import Tools
from myllm.api.shared.completion_schemas import ChatCompletionRequest
from myllm.gateway.conversation.adapt import adapted
from myllm.gateway.conversation.ignored import Ignored
from myllm.gateway.conversation.messages import RawMessages
from myllm.gateway.conversation.normalize import normalized
from myllm.gateway.conversation.traits import TemplateTraits

BOUND_MS: Final = 10
ROUNDS: Final = 25
TURNS: Final = 40
"""With 400 words each, about 20,000 tokens."""
RESULT: Final = "def add(a, b):  # line of a file that the agent has read\n    return a + b\n" * 12
TOLERANT: Final = TemplateTraits()
MISTRAL: Final = TemplateTraits(
    late_systems=False,
    alternates=True,
    needs_user=True,
    short_ids=True,
    system_in_tool_loops=False,
    text_beside_calls="nowhere",
    user_after_result=False,
)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--turns", type=int, default=TURNS, help="turns with a tool call each")
    args = parser.parse_args()
    figures: list[Figure] = []
    for name, convert in conversions(args.turns).items():
        for kind, traits in (("accepts all", TOLERANT), ("Mistral's", MISTRAL)):
            samples = [_ms(convert, traits) for _ in range(ROUNDS)]
            figures.append(median_of(f"{name}, template {kind}", samples, BOUND_MS, "ms"))
    (print_json if args.json else print_table)(figures)
    return 0 if all(figure.ok for figure in figures) else 1


def conversions(turns: int) -> dict[str, Callable[[], RawMessages]]:
    """For each dialect, what converts a checked request of so many turns."""
    chat = history(turns)
    openai = ChatCompletionRequest.model_validate({"model": "m", "messages": chat})
    native = ChatRequest.model_validate({"model": "m", "messages": chat})
    ollama = OllamaChatRequest.model_validate({"model": "m", "messages": _ollamas(chat)})
    anthropic = MessagesRequest.model_validate(
        {"model": "m", "max_tokens": 9, "messages": _anthropics(chat), "system": "Be brief."}
    )
    responses = ResponsesRequest.model_validate({"model": "m", "input": _items(chat)})
    return {
        "/v1/chat/completions": lambda: cast(RawMessages, openai.messages),
        "/v1/responses": lambda: of_responses(responses.items(), Tools(), Ignored()),
        "/v1/messages": lambda: of_anthropic(anthropic, Ignored()),
        "/ollama/api/chat": lambda: of_ollama(ollama.messages),
        "/api/chat": native.wire,
    }


def _ms(convert: Callable[[], RawMessages], traits: TemplateTraits) -> float:
    began, ignored = time.perf_counter(), Ignored()
    adapted(normalized(convert(), ignored), traits, ignored)
    return 1000 * (time.perf_counter() - began)


def history(turns: int) -> list[dict[str, Any]]:
    """The conversation in OpenAI's form."""
    made: list[dict[str, Any]] = [{"role": "system", "content": "Be brief. " * 200}]
    for turn in range(turns):
        arguments = orjson.dumps({"path": f"src/module_{turn}.py", "lines": [1, 200]}).decode()
        function = {"name": "read_file", "arguments": arguments}
        call_id = f"call_{turn}_0"
        made += [
            {"role": "user", "content": f"Look at module {turn}. " * 10},
            {
                "role": "assistant",
                "content": "I read the file first.",
                "reasoning_content": "The user wants to know what is in it. " * 5,
                "tool_calls": [{"id": call_id, "type": "function", "function": function}],
            },
            {"role": "tool", "tool_call_id": call_id, "content": RESULT},
            {"role": "assistant", "content": "It adds two numbers. " * 20},
        ]
    return [*made, {"role": "user", "content": "And now?"}]


def _ollamas(chat: list[dict[str, Any]]) -> list[dict[str, Any]]:
    made = []
    for message in chat:
        calls = [
            {"function": {"name": f["name"], "arguments": orjson.loads(f["arguments"])}}
            for f in (call["function"] for call in message.get("tool_calls", ()))
        ]
        made.append({"role": message["role"], "content": message["content"], "tool_calls": calls})
    return made


def _anthropics(chat: list[dict[str, Any]]) -> list[dict[str, Any]]:
    made = []
    for message in chat[1:]:
        role, text = message["role"], {"type": "text", "text": message["content"]}
        if role == "tool":
            result = {"type": "tool_result", "tool_use_id": message["tool_call_id"]}
            made.append({"role": "user", "content": [result | {"content": [text]}]})
            continue
        uses = [
            {"type": "tool_use", "id": call["id"], "name": f["name"], "input": {"path": "a"}}
            for call in message.get("tool_calls", ())
            for f in [call["function"]]
        ]
        made.append({"role": role, "content": [text, *uses]})
    return made


def _items(chat: list[dict[str, Any]]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    for message in chat:
        if message["role"] == "tool":
            output = {"call_id": message["tool_call_id"], "output": message["content"]}
            items.append({"type": "function_call_output", **output})
            continue
        kind = "output_text" if message["role"] == "assistant" else "input_text"
        content = [{"type": kind, "text": message["content"]}]
        items.append({"type": "message", "role": message["role"], "content": content})
        for call in message.get("tool_calls", ()):
            items.append({"type": "function_call", "call_id": call["id"], **call["function"]})
    return items


if __name__ == "__main__":
    sys.exit(main())
