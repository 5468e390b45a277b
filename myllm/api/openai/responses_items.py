"""The items of a `/v1/responses` input as messages in the form of OpenAI's chat completions.

Repairs are left to the gateway (`gateway/conversation`), which has them for every dialect.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from myllm.api.openai.responses_thinking import thinking_of
from myllm.api.openai.responses_tools import INPUT, Tools
from myllm.errors import InvalidRequest
from myllm.gateway.conversation.ignored import Ignored
from myllm.gateway.conversation.messages import RawMessages, is_long

Item = Mapping[str, Any]

# So many parts, tools, or letters of encoded thinking are read in a millisecond.
_FEW: Final = 100
_FEW_CHARS: Final = 200_000
_ROLES: Final = ("system", "developer", "user", "assistant")
_TEXTS: Final = ("input_text", "output_text", "text")
# Calls of OpenAI's built-in tools that the client runs, by the field with their arguments.
_CALLS: Final = {
    "local_shell_call": "action",
    "shell_call": "action",
    "apply_patch_call": "operation",
    "computer_call": "action",
    "tool_search_call": "arguments",
}
_OUTPUTS: Final = frozenset(
    {
        *("function_call_output", "custom_tool_call_output", "local_shell_call_output"),
        *("shell_call_output", "apply_patch_call_output", "computer_call_output"),
    }
)
# Items that offer tools from their place in the conversation on; here, all are offered at once.
_OFFERS: Final = ("additional_tools", "tool_search_output")


def is_much(items: Sequence[Item]) -> bool:
    """Whether reading `items` may take more than a millisecond, and so belongs in a thread."""
    if is_long(items):
        return True
    lists = (item.get(name) for item in items for name in ("output", "tools"))
    encoded = (item.get("encrypted_content") for item in items)
    return (
        sum(len(each) for each in lists if isinstance(each, list)) > _FEW
        or sum(len(each) for each in encoded if isinstance(each, str)) > _FEW_CHARS
    )


def messages_of(items: Sequence[Item], tools: Tools, ignored: Ignored) -> RawMessages:
    """Convert items to messages; calls become part of the assistant's message before them.

    `tools` gets those that items offer, and says by which names the model knows the others.
    `ignored` names the items that are left out. Raises InvalidRequest for an incomplete item.
    """
    for index, item in enumerate(items):
        if item.get("type") in _OFFERS:
            where = f"input[{index}].tools"
            tools.add_all(_list(item.get("tools"), where), where, ignored)
    asked = _last_question(items)
    reading = _Reading(tools, ignored)
    for index, item in enumerate(items):
        reading.add(item, f"input[{index}]", index == asked)
    if not reading.messages:
        raise InvalidRequest("input must have an item that a model can be given")
    return reading.messages


def _last_question(items: Sequence[Item]) -> int:
    """Return the index of the user's last message: the request depends on all of it."""
    found = (n for n in range(len(items) - 1, -1, -1) if _is_question(items[n]))
    return next(found, -1)


def _is_question(item: Item) -> bool:
    return item.get("role") == "user" and item.get("type") in (None, "message")


class _Reading:
    """The messages so far, and what has been thought before the next one."""

    def __init__(self, tools: Tools, ignored: Ignored) -> None:
        self.messages: RawMessages = []
        self._tools = tools
        self._ignored = ignored
        self._thoughts: list[str] = []

    def add(self, item: Item, where: str, is_asked: bool) -> None:
        kind = item.get("type") or "message"
        if not isinstance(kind, str):
            raise InvalidRequest(f"{where}.type must be a string")
        match kind:
            case "message":
                self._add_message(item, where, is_asked)
            case "function_call":
                self._add_call(item, self._name(item, where), item.get("arguments"))
            case "custom_tool_call":
                self._add_call(item, self._name(item, where), {INPUT: item.get("input") or ""})
            case _ if kind in _CALLS:
                self._add_call(item, kind.removesuffix("_call"), _arguments(item, _CALLS[kind]))
            case _ if kind in _OUTPUTS:
                self._add_result(item, where)
            case "tool_search_output":
                self._add_found(item, where)
            case "reasoning":
                self._thoughts.append(readable(thinking_of(item)))
            case "additional_tools":
                pass
            case "compaction_trigger":
                raise InvalidRequest(f"{where}: this server compacts no conversations")
            case _:
                self._ignored.add(f"{where} ({kind})")

    def _name(self, item: Item, where: str) -> str:
        """Return the name by which the model knows the tool that was called."""
        namespace = item.get("namespace")
        name = _text(item, "name", where)
        return self._tools.seen_name(name, namespace if isinstance(namespace, str) else None)

    def _add_message(self, item: Item, where: str, is_asked: bool) -> None:
        role = _text(item, "role", where)
        if role not in _ROLES:
            raise InvalidRequest(f"{where}.role must be one of {', '.join(_ROLES)}")
        ignored = None if is_asked else self._ignored
        content = _content(item.get("content"), f"{where}.content", ignored)
        self._append({"role": role, "content": content})

    def _add_call(self, item: Item, name: str, arguments: Any) -> None:
        if not self.messages or self.messages[-1]["role"] != "assistant" or self._thoughts:
            self._append({"role": "assistant", "content": ""})
        call = {
            "id": _call_id(item),
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        self.messages[-1].setdefault("tool_calls", []).append(call)

    def _add_result(self, item: Item, where: str) -> None:
        output = item.get("output")
        if isinstance(output, list) and item.get("type") == "shell_call_output":
            output = json.dumps(output, ensure_ascii=False)
        elif isinstance(output, Mapping):
            output = [output]  # a screenshot
        content = _content(output, f"{where}.output", self._ignored)
        self._append({"role": "tool", "tool_call_id": _call_id(item), "content": content})

    def _add_found(self, item: Item, where: str) -> None:
        """Add the result of a search for tools: the names of those that it found."""
        found = self._tools.seen_names(_list(item.get("tools"), f"{where}.tools"))
        text = f"Found these tools: {', '.join(found)}" if found else "Found no tools"
        self._append({"role": "tool", "tool_call_id": _call_id(item), "content": readable(text)})

    def _append(self, message: dict[str, Any]) -> None:
        if self._thoughts and message["role"] == "assistant":
            message["reasoning_content"] = "\n".join(filter(None, self._thoughts))
        self._thoughts.clear()
        self.messages.append(message)


def _content(content: Any, where: str, ignored: Ignored | None) -> str | list[dict[str, Any]]:
    """Return a text or parts; without `ignored`, an unknown part is refused."""
    if content is None:
        return ""
    if isinstance(content, str):
        return readable(content)
    if not isinstance(content, list):
        raise InvalidRequest(f"{where} must be a text or a list of parts")
    made = []
    for index, given in enumerate(content):
        at = f"{where}[{index}]"
        part = _part(given, at)
        kind = given.get("type") if isinstance(given, Mapping) else type(given).__name__
        if part is not None:
            made.append(part)
        elif ignored is None:
            known = "input_text, output_text, input_image, input_file or input_audio"
            raise InvalidRequest(f"{at}.type must be {known}, not {kind!r}")
        else:
            ignored.add(f"{at} ({kind})")
    return made


def _part(part: Any, where: str) -> dict[str, Any] | None:
    """Return a part in the form of chat completions, or None for one that no model can have."""
    if isinstance(part, str):
        return {"type": "text", "text": readable(part)}
    if not isinstance(part, Mapping):
        return None
    match part.get("type"):
        case kind if kind in _TEXTS:
            return {"type": "text", "text": _text(part, "text", where)}
        case "refusal":
            return {"type": "text", "text": _text(part, "refusal", where)}
        case "input_image" | "computer_screenshot" if part.get("image_url"):
            return {"type": "image_url", "image_url": {"url": _text(part, "image_url", where)}}
        case "input_file" if part.get("file_data"):
            return {"type": "file", "file": {"file_data": _text(part, "file_data", where)}}
        case "input_audio":
            return {"type": "input_audio", "input_audio": part.get("input_audio")}
    return None


def _arguments(item: Item, name: str) -> Any:
    """Return the arguments of a built-in tool's call; what is no object is left to be repaired."""
    given = item.get(name)
    if not isinstance(given, Mapping):
        return given
    return {key: value for key, value in given.items() if value is not None and key != "type"}


def _call_id(item: Item) -> str | None:
    """Return the id that a call and its result share; older clients have it in `id`."""
    found = item.get("call_id") or item.get("id")
    return found if isinstance(found, str) else None


def _list(given: Any, where: str) -> list[Any]:
    if given is not None and not isinstance(given, list):
        raise InvalidRequest(f"{where} must be a list")
    return given or []


def _text(holder: Item, name: str, where: str) -> str:
    value = holder.get(name)
    if not isinstance(value, str):
        raise InvalidRequest(f"{where}.{name} must be a string")
    return readable(value)


def readable(text: str) -> str:
    """Return `text` as every database can store it: outputs of tools may have U+0000."""
    return text.replace("\0", "\ufffd")
