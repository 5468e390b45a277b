"""How many tokens a request will probably take, before an engine has counted its prompt.

Only texts are looked at. How many tokens a picture or a recording has is not known until the engine
has seen it; they count when the request has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from myllm.json_output import dump_in_steps

# English prose and code have four letters a token, other scripts half as many.
_ASCII_CHARS: Final = 4
_OTHER_CHARS: Final = 2
# What a chat template adds to a message.
_MESSAGE_TOKENS: Final = 4
_UNBOUNDED: Final = 2**30


def prompt_tokens(body: Mapping[str, Any]) -> int:
    """Estimate the tokens of all prompts, messages, inputs and documents in the body of a request
    to an engine."""
    tokens = 0
    for name, count in _COUNTS.items():
        if value := body.get(name):
            tokens += count(value)
    return tokens + _queries(body) if "query" in body else tokens


def answer_tokens(body: Mapping[str, Any]) -> int:
    """Return the most tokens that one answer may have; 0 if only the context bounds it."""
    most = body.get("n_predict") or body.get("max_tokens") or 0
    return most if 0 < most < _UNBOUNDED else 0


def text_tokens(text: str) -> int:
    """Estimate the tokens of a text; takes the same time for each."""
    return len(text) // (_ASCII_CHARS if text.isascii() else _OTHER_CHARS) + 1


def _prompt(prompt: Any) -> int:
    """A text, tokens, a list of both, or an object with one of them and pictures."""
    if isinstance(prompt, str):
        return text_tokens(prompt)
    if isinstance(prompt, Mapping):
        return _prompt(prompt.get("prompt_string") or prompt.get("prompt") or "")
    if prompt and isinstance(prompt[0], int):
        return len(prompt)
    return sum(text_tokens(each) if isinstance(each, str) else 1 for each in prompt)


def _queries(body: Mapping[str, Any]) -> int:
    """A reranker reads its query again with each document."""
    return text_tokens(body["query"]) * len(body["documents"])


def _each_prompt(prompts: Iterable[Any]) -> int:
    return sum(prompt_tokens(each) for each in prompts)


def _inputs(inputs: Any) -> int:
    return text_tokens(inputs) if isinstance(inputs, str) else sum(map(_prompt, inputs))


def _files(files: Iterable[Mapping[str, str]]) -> int:
    return sum(text_tokens(each["text"]) for each in files)


def _messages(messages: Iterable[Any]) -> int:
    return sum(map(_message, messages))


def _message(message: Any) -> int:
    """Of a message in wire form, or of one as it is stored."""
    if not isinstance(message, Mapping):
        return _MESSAGE_TOKENS + text_tokens(message.content)
    tokens, content = _MESSAGE_TOKENS, message.get("content")
    if isinstance(content, str):
        tokens += text_tokens(content)
    else:
        tokens += sum(text_tokens(part.get("text") or "") for part in content or ())
    if calls := message.get("tool_calls"):
        tokens += _json(calls)
    return tokens


def _json(value: Any) -> int:
    return len(dump_in_steps(value)) // _ASCII_CHARS


_COUNTS: Final[Mapping[str, Callable[[Any], int]]] = {
    "prompt": _prompt,
    "prompts": _each_prompt,
    "messages": _messages,
    "input": _inputs,
    "documents": _inputs,
    "input_prefix": text_tokens,
    "input_suffix": text_tokens,
    "input_extra": _files,
    "tools": _json,
}
