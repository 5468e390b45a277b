"""Finds out what a model's chat template accepts, by rendering short conversations with it.

A probe passes if the engine renders it and the marker of each message is in the prompt: some
templates refuse what they do not expect, and others drop it and say nothing. What is sent as
probes was chosen by rendering all templates that come with llama.cpp.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson

from myllm.errors import InvalidRequest
from myllm.gateway.conversation.adapt import adapted, is_plain
from myllm.gateway.conversation.ignored import Ignored
from myllm.gateway.conversation.messages import ChatMessage, Messages, ToolCall, is_long
from myllm.gateway.conversation.traits import STRICTEST, TemplateTraits
from myllm.gateway.engine_io import calls
from myllm.supervisor.instance import Instance
from myllm.threads import in_thread_if

_MARKER: Final = re.compile(r"zq[a-z]+")
_TOOL: Final = "probe_tool"
_TOOLS: Final = [
    {
        "type": "function",
        "function": {
            "name": _TOOL,
            "description": "A tool.",
            "parameters": {"type": "object", "properties": {"text": {"type": "string"}}},
        },
    }
]
Render = Callable[[Messages], Awaitable[bool]]
"""Renders messages and returns whether everything in them is in the prompt."""


class TemplateProbes:
    """Remembers what the template of each model accepts."""

    def __init__(self) -> None:
        self._known: dict[object, TemplateTraits] = {}
        self._locks: defaultdict[object, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def fitted(self, instance: Instance, messages: Messages, ignored: Ignored) -> Messages:
        """Return `messages` as the chat template of `instance` accepts them.

        `ignored` names what has no place in them. Raises what `calls.apply_template` raises, but
        for a template's refusals.
        """
        if is_plain(messages):
            return messages
        traits = await self.traits(instance)
        return await in_thread_if(is_long(messages), adapted, messages, traits, ignored)

    async def traits(self, instance: Instance) -> TemplateTraits:
        """Return what the template of `instance` accepts; once per model, the engine is asked."""
        model = instance.spec.model
        key = model.digest, model.chat
        async with self._locks[key]:
            if key not in self._known:
                self._known[key] = await find_traits(lambda each: _keeps(instance, each))
        return self._known[key]


async def _keeps(instance: Instance, messages: Messages) -> bool:
    body: dict[str, Any] = {"messages": messages}
    if any("tool_calls" in message for message in messages):
        body["tools"] = _TOOLS
    try:
        prompt = await calls.apply_template(instance, body)
    except InvalidRequest:
        return False
    return all(marker in prompt for marker in _MARKER.findall(orjson.dumps(messages).decode()))


async def find_traits(keeps: Render) -> TemplateTraits:
    """Return the traits of the template with which `keeps` renders."""
    traits = TemplateTraits(
        late_systems=await _all(keeps, *_LATE_SYSTEMS),
        alternates=not await _all(keeps, *_REPEATED_ROLES),
        needs_user=not await _all(keeps, [_system("zqa")], [_assistant("zqa")]),
        **await _tool_traits(keeps),
    )
    return traits if await keeps(adapted(_EVERYTHING, traits, Ignored())) else STRICTEST


async def _all(keeps: Render, *probes: Messages) -> bool:
    for probe in probes:
        if not await keeps(probe):
            return False
    return True


async def _tool_traits(keeps: Render) -> dict[str, Any]:
    one = _call("zqone")
    short_ids = False
    if not await keeps([_USER, _calling(one), _result(one)]):
        one, short_ids = _call("zqone", "abcdefgh1"), True
        if not await keeps([_USER, _calling(one), _result(one)]):
            as_text = _assistant("zqcall")
            return {
                "calls": False,
                "results": await keeps([_USER, as_text, _result(one)]),
                "thoughts": await _place_of_thoughts(keeps, None),
            }
    other = _call("zqtwo", "abcdefgh2")
    together = [_USER, _calling(one, other), _result(one), _result(other, "zqother")]
    return {
        "short_ids": short_ids,
        "parallel_calls": await keeps(together),
        "system_in_tool_loops": await keeps([_system("zqa"), _USER, _calling(one), _result(one)]),
        "text_beside_calls": await _place_of_text(keeps, one),
        "user_after_result": await keeps(
            [_USER, _calling(one), _result(one), {"role": "user", "content": "zqlast"}]
        ),
        "results_apart": await keeps(
            [_USER, _calling(one), {"role": "user", "content": "zqlast"}, _result(one)]
        ),
        "thoughts": await _place_of_thoughts(keeps, one),
    }


async def _place_of_text(keeps: Render, call: ToolCall) -> str:
    calling, answer = _calling(call), _result(call)
    end = [_assistant("zqend"), _USER]
    loop: Messages = [_USER, {**calling, "content": "zqtext"}, answer]
    is_shown = await keeps(loop)
    if is_shown and await keeps([*loop, *end]):
        return "together"
    if await keeps([_USER, _assistant("zqtext"), calling, answer, *end]):
        return "together in the last turn" if is_shown else "in a message before"
    return "nowhere"


async def _place_of_thoughts(keeps: Render, call: ToolCall | None) -> str:
    """Return where thoughts can be, by what becomes of the text beside them."""
    answer: ChatMessage = {"role": "assistant", "content": "zqtext", "reasoning_content": "think"}
    if not await keeps([_USER, answer, _USER]):
        return "never"
    if call is None:
        return "beside text"
    thinking: ChatMessage = {**_calling(call), "reasoning_content": "zqthought"}
    if not await keeps([_USER, thinking, _result(call)]):
        return "beside text"
    both = await keeps([_USER, {**thinking, "content": "zqtext"}, _result(call)])
    return "beside text" if both else "instead of text"


def _system(text: str) -> ChatMessage:
    return {"role": "system", "content": text}


def _assistant(text: str) -> ChatMessage:
    return {"role": "assistant", "content": text}


def _call(text: str, call_id: str = "call_1_0") -> ToolCall:
    arguments = orjson.dumps({"text": text}).decode()
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": _TOOL, "arguments": arguments},
    }


def _calling(*calls: ToolCall) -> ChatMessage:
    return {"role": "assistant", "content": "", "tool_calls": list(calls)}


def _result(call: ToolCall, text: str = "zqresult") -> ChatMessage:
    return {"role": "tool", "content": text, "tool_call_id": call["id"], "name": _TOOL}


_USER: Final[ChatMessage] = {"role": "user", "content": "zquser"}
_LATE_SYSTEMS: Final[list[Messages]] = [
    [_system("zqa"), _system("zqb"), _USER],
    [_system("zqa"), _USER, _assistant("zqb"), _system("zqc"), {"role": "user", "content": "zqd"}],
    [_system("zqa"), _USER, _system("zqb")],
]
_REPEATED_ROLES: Final[list[Messages]] = [
    [_USER, {"role": "user", "content": "zqa"}, _assistant("zqb"), _USER],
    [_assistant("zqa"), _USER],
    [_USER, _assistant("zqa"), _assistant("zqb"), _USER],
]
_EVERYTHING: Final[Messages] = [
    _system("zqa"),
    _system("zqb"),
    _USER,
    {"role": "user", "content": "zqc"},
    _assistant("zqd"),
    _calling(_call("zqe", "call_1"), _call("zqf", "call_2")),
    _result(_call("", "call_1"), "zqg"),
    _result(_call("", "call_2"), "zqh"),
    {"role": "user", "content": "zqi"},
    _calling(_call("zqj", "call_3")),
    _system("zqk"),
    {"role": "user", "content": "zql"},
]
