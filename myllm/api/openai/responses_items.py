"""The items of a `/v1/responses` input as messages in the form of OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from myllm.errors import InvalidRequest
from myllm.sessions.history import storable

_TEXTS = ("input_text", "output_text", "text")


def messages_of(items: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Convert items to messages; calls become part of the assistant's message before them.

    Raises InvalidRequest for an unknown or incomplete item.
    """
    made: list[dict[str, Any]] = []
    for index, item in enumerate(items):
        where = f"input[{index}]"
        match item.get("type", "message"):
            case "message":
                role = _text(item, "role", where)
                if role not in ("system", "developer", "user", "assistant"):
                    raise InvalidRequest(f"{where}.role must be system, developer, user, assistant")
                content = _content(item, "content", where)
                made.append({"role": "system" if role == "developer" else role, "content": content})
            case "function_call":
                if not made or made[-1]["role"] != "assistant":
                    made.append({"role": "assistant", "content": ""})
                names = "name", "arguments"
                function = {name: _text(item, name, where) for name in names}
                call = {"id": _text(item, "call_id", where), "function": function}
                made[-1].setdefault("tool_calls", []).append(call)
            case "function_call_output":
                output = _content(item, "output", where)
                call_id = _text(item, "call_id", where)
                made.append({"role": "tool", "tool_call_id": call_id, "content": output})
            case "reasoning":
                pass
            case other:
                raise InvalidRequest(
                    f"{where}: items of type {other!r} are not known; there are message, "
                    "function_call, function_call_output and reasoning"
                )
    if not made:
        raise InvalidRequest("input must not be empty")
    return made


def _content(holder: Mapping[str, Any], name: str, where: str) -> str | list[dict[str, Any]]:
    content = holder.get(name)
    if isinstance(content, str):
        return _text(holder, name, where)
    where = f"{where}.{name}"
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise InvalidRequest(f"{where} must be a text or a list of parts")
    return [_part(part, f"{where}[{index}]") for index, part in enumerate(content)]


def _part(part: Mapping[str, Any], where: str) -> dict[str, Any]:
    kind = part.get("type")
    if kind in _TEXTS:
        return {"type": "text", "text": _text(part, "text", where)}
    if kind == "refusal":
        return {"type": "text", "text": _text(part, "refusal", where)}
    if kind == "input_image":
        return {"type": "image_url", "image_url": {"url": _text(part, "image_url", where)}}
    raise InvalidRequest(
        f"{where}.type must be input_text, output_text or input_image, not {kind!r}"
    )


def _text(holder: Mapping[str, Any], name: str, where: str) -> str:
    value = holder.get(name)
    if not isinstance(value, str):
        raise InvalidRequest(f"{where}.{name} must be a string")
    try:
        return storable(value)
    except ValueError as failure:
        raise InvalidRequest(f"{where}.{name} {failure}") from None
