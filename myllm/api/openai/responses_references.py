"""Stored answers as clients see them again: whole, or one item of them by its id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from myllm.api.openai.responses_output import Form, whole
from myllm.api.openai.responses_tools import stored_tools
from myllm.errors import NotFound
from myllm.gateway.generation.events import Call
from myllm.gateway.generation.stored_responses import KEY_CHARS, key_of, stored
from myllm.sessions.history import Message
from myllm.sessions.store import SessionStore

_REFERENCE: Final = "item_reference"

Item = Mapping[str, Any]


async def resolved(sessions: SessionStore, owner: str, items: Sequence[Item]) -> Sequence[Item]:
    """Return `items` with what was stored in place of references.

    Raises NotFound for the id of an item that is not stored.
    """
    if not any(map(_is_reference, items)):
        return items
    answers: dict[str, dict[str, Item]] = {}  # one answer has several items
    made = []
    for item in items:
        if not _is_reference(item):
            made.append(item)
            continue
        item_id = str(item.get("id"))
        key = item_id.partition("_")[2][:KEY_CHARS]
        if key not in answers:
            answers[key] = await _items_of(sessions, owner, key)
        if item_id not in answers[key]:
            raise NotFound(f"Item with id '{item_id}' not found")
        made.append(answers[key][item_id])
    return made


def _is_reference(item: Item) -> bool:
    kind = item.get("type")
    return kind == _REFERENCE or (kind is None and "id" in item and "role" not in item)


async def _items_of(sessions: SessionStore, owner: str, key: str) -> dict[str, Item]:
    try:
        found = shown(await stored(sessions, owner, f"resp_{key}"))
    except NotFound:
        return {}
    return {item["id"]: item for item in found["output"]}


def shown(message: Message) -> dict[str, Any]:
    """Return the response that is stored as `message`."""
    extra = message.extra or {}
    record = extra["response"]
    calls = [Call(each["id"], **each["function"]) for each in extra.get("tool_calls", ())]
    status = "incomplete" if record["ended"] in ("length", "left") else "completed"
    form = Form(stored_tools(record.get("tools") or {}))
    key, thinking = key_of(record["id"]), extra.get("thinking", "")
    return whole(record, form.output(key, message.content, thinking, calls, status))
