"""Stored answers as clients see them again: whole, or one item of them by its id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

from myllm.api.openai.responses_output import Form, whole
from myllm.api.openai.responses_tools import stored_tools
from myllm.errors import InvalidRequest, NotFound
from myllm.gateway.conversation.messages import is_long
from myllm.gateway.generation.events import Call
from myllm.gateway.generation.stored_responses import KEY_CHARS, key_of, stored
from myllm.sessions.history import Message
from myllm.sessions.store import SessionStore
from myllm.threads import in_thread_if

_REFERENCE: Final = "item_reference"

Item = Mapping[str, Any]


async def resolved(
    sessions: SessionStore, owner: str, items: Sequence[Item], most_bytes: int
) -> Sequence[Item]:
    """Return `items` with what was stored in place of references.

    Raises NotFound for the id of an item that is not stored, and InvalidRequest if what replaces
    the references has more than `most_bytes` together: an item may be referred to many times.
    """
    counts = await in_thread_if(is_long(items), _references, items)
    if not counts:
        return items
    found: dict[str, Item] = {}
    size = 0
    for key, ids in _by_answer(counts).items():
        stored_items = await _items_of(sessions, owner, key)
        for item_id in ids:
            if item_id not in stored_items:
                raise NotFound(f"Item with id '{item_id}' not found")
            found[item_id] = stored_items[item_id]
            size += counts[item_id] * len(orjson.dumps(found[item_id]))
            if size > most_bytes:
                raise InvalidRequest(
                    f"input: what the item references name has more than {most_bytes:,} bytes "
                    "(MYLLM_MAX_BODY_MB); refer to fewer items, or use previous_response_id"
                )
    return await in_thread_if(is_long(items), _replaced, items, found)


def _references(items: Sequence[Item]) -> Counter[str]:
    return Counter(str(item.get("id")) for item in items if _is_reference(item))


def _by_answer(ids: Iterable[str]) -> dict[str, list[str]]:
    """Return the ids of items by the key of the answer that has them: one may have several."""
    answers: dict[str, list[str]] = {}
    for item_id in ids:
        answers.setdefault(item_id.partition("_")[2][:KEY_CHARS], []).append(item_id)
    return answers


def _replaced(items: Sequence[Item], found: Mapping[str, Item]) -> Sequence[Item]:
    return [found[str(item.get("id"))] if _is_reference(item) else item for item in items]


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
    order = record.get("order", ())
    return whole(record, form.output(key, message.content, thinking, calls, status, order))
