"""A conversation as a file: JSON for programs, Markdown for people; both can be imported again.

In Markdown each message begins with a comment that holds its fields, then a heading. A line of a
message that looks like such a comment is escaped with a backslash.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast, get_args

from myllm.errors import InvalidRequest
from myllm.json_input import check_values, parse_json
from myllm.limits import MESSAGES
from myllm.sessions.history import Extra, Message, RoleName, storable

Format = Literal["json", "markdown"]
FORMATS: Final = get_args(Format)
_VERSION: Final = 1
_SESSION: Final = "<!-- myllm session: "
_MESSAGE: Final = "<!-- myllm message: "
_END: Final = " -->"
_LOOKS_LIKE_ONE: Final = re.compile(r"^(\\*<!-- myllm (?:session|message): )", re.MULTILINE)
_ESCAPED: Final = re.compile(r"^\\(\\*<!-- myllm (?:session|message): )", re.MULTILINE)
# The type of each field; a list holds objects.
_EXTRA: Final[dict[str, type[Any]]] = {
    "tool_calls": list,
    "tool_call_id": str,
    "parts": list,
    "thinking": str,
    "in_place": bool,
}
_KINDS: Final[dict[type[Any], str]] = {list: "list", str: "text", bool: "boolean"}
_ROLES: Final[tuple[RoleName, ...]] = get_args(RoleName)


@dataclass(frozen=True)
class Document:
    """The contents of a file: the messages in force, and the names of the session and model."""

    id: str
    model: str
    title: str
    messages: tuple[Message, ...]


def write(document: Document, form: Format) -> str:
    """Return the text of the file."""
    return _to_json(document) if form == "json" else _to_markdown(document)


def read(text: str, form: Format) -> Document:
    """Return the contents of a file. Raises InvalidRequest, which says where it is wrong."""
    return _from_json(text) if form == "json" else _from_markdown(text)


def _to_json(document: Document) -> str:
    messages = [_fields(message) | {"content": message.content} for message in document.messages]
    whole = _about(document) | {"messages": messages}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _from_json(text: str) -> Document:
    whole = _object(text, "the file")
    messages = whole.get("messages")
    if not isinstance(messages, list):
        raise InvalidRequest("messages must be a list")
    _check_count(len(messages))
    parsed = []
    for index, fields in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(fields, dict):
            raise InvalidRequest(f"{where} must be an object")
        parsed.append(_message(fields, _text(fields, "content", where), where))
    return _document(whole, parsed)


def _to_markdown(document: Document) -> str:
    about = _in_comment(_about(document))
    parts = [f"# {_one_line(document.title)}\n\n{_SESSION}{about}{_END}\n\n"]
    for message in document.messages:
        content = _LOOKS_LIKE_ONE.sub(r"\\\1", message.content)
        head = f"{_MESSAGE}{_in_comment(_fields(message))}{_END}\n### {message.role.capitalize()}"
        parts.append(f"{head}\n\n{content}\n\n")
    return "".join(parts)


def _from_markdown(text: str) -> Document:
    _check_count(text.count(_MESSAGE))
    head, *blocks = re.split(rf"^{re.escape(_MESSAGE)}", text, flags=re.MULTILINE)
    check_values(",".join(block.partition("\n")[0] for block in blocks).encode(), "the file")
    about = re.search(rf"^{re.escape(_SESSION)}(.*){re.escape(_END)}\r?$", head, re.MULTILINE)
    if about is None:
        raise InvalidRequest(f"no line '{_SESSION}...{_END}' before the first message")
    parsed = [_block(block, f"message {number}") for number, block in enumerate(blocks, start=1)]
    return _document(_object(about[1], "the session's line"), parsed)


def _check_count(messages: int) -> None:
    if messages > MESSAGES:
        raise InvalidRequest(f"the file has {messages} messages; {MESSAGES} are taken at most")


def _block(block: str, where: str) -> Message:
    marker, _, rest = block.partition("\n")
    heading, _, rest = rest.partition("\n\n")
    if not marker.rstrip("\r").endswith(_END) or not heading.startswith("### "):
        raise InvalidRequest(f"{where} must be a comment, a '### ' heading, a blank line, a text")
    fields = _object(marker.rstrip("\r").removesuffix(_END), where)
    content = rest.removesuffix("\n\n") if rest.endswith("\n\n") else rest.removesuffix("\n")
    return _message(fields, _ESCAPED.sub(r"\1", content), where)


def _about(document: Document) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "id": document.id,
        "model": document.model,
        "title": document.title,
    }


def _fields(message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = {"role": message.role}
    if message.partial:
        fields["partial"] = True
    return fields | message.shown()


def _in_comment(fields: dict[str, Any]) -> str:
    """Return JSON that cannot end the comment around it."""
    return json.dumps(fields).replace(">", "\\u003e")


def _document(about: dict[str, Any], messages: Sequence[Message]) -> Document:
    if about.get("version") != _VERSION:
        raise InvalidRequest(f"version must be {_VERSION}, not {about.get('version')!r}")
    if not messages:
        raise InvalidRequest("there is no message in it")
    names = ("id", "model", "title")
    session_id, model, title = (_storable(_text(about, n, "it"), n, "it") for n in names)
    return Document(session_id, model, title, tuple(messages))


def _message(fields: dict[str, Any], content: str, where: str) -> Message:
    partial = fields.get("partial", False)
    role = next((role for role in _ROLES if role == fields.get("role")), None)
    if role is None:
        raise InvalidRequest(f"{where}: role must be one of {', '.join(_ROLES)}")
    if not isinstance(partial, bool):
        raise InvalidRequest(f"{where}: partial must be true or false")
    content = _storable(content, "content", where)
    return Message(role, content, partial, extra=_extra(fields, where))


def _extra(fields: dict[str, Any], where: str) -> Extra | None:
    found = {name: fields[name] for name in _EXTRA if name in fields}
    for name, value in found.items():
        if not isinstance(value, _EXTRA[name]):
            raise InvalidRequest(f"{where}: {name} must be a {_KINDS[_EXTRA[name]]}")
        if isinstance(value, list) and not all(isinstance(each, dict) for each in value):
            raise InvalidRequest(f"{where}: {name} must be a list of objects")
    return cast(Extra, found) or None


def _text(fields: dict[str, Any], name: str, where: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise InvalidRequest(f"{where}: {name} must be a text")
    return value


def _storable(text: str, name: str, where: str) -> str:
    try:
        return storable(text)
    except ValueError as failure:
        raise InvalidRequest(f"{where}: {name} {failure}") from None


def _object(text: str, where: str) -> dict[str, Any]:
    value = parse_json(text.encode(), where)
    if not isinstance(value, dict):
        raise InvalidRequest(f"{where} must be a JSON object")
    return value


def _one_line(title: str) -> str:
    return " ".join(title.split()) or "Conversation"
