"""What the events of a stream add to an answer, whichever form the engine tells them in.

    chat    `/v1/chat/completions`: text, thinking, calls of tools
    text    `/v1/completions`
    plain   llama.cpp's own `/completion` and `/infill`

`Said` is the sum of the deltas so far. `Due` is what a second run of the same request must say
again before it says anything new.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from myllm.gateway.generation.events import Call, CallPart
from myllm.gateway.generation.transcript import Diverged

Form = Literal["chat", "text", "plain"]
VERBOSE = "__verbose"
"""The field of a `verbose` event that has what the engine itself knows."""


@dataclass(frozen=True)
class Delta:
    """What one event adds. `usage` and `timings` are the engine's own; the stop string that ended
    the answer it tells only to those who ask for `verbose` events."""

    text: str = ""
    thinking: str = ""
    calls: tuple[CallPart, ...] = ()
    logprobs: tuple[Any, ...] = ()
    finish_reason: str | None = None
    stop_text: str | None = None
    usage: dict[str, Any] | None = None
    timings: dict[str, Any] | None = None

    def says_something(self) -> bool:
        """Whether it adds to the answer itself."""
        return bool(self.text or self.thinking or self.calls)


@dataclass
class Said:
    """An answer so far. `head` has the fields that its events share, `texts` the pieces of text
    as they came."""

    form: Form
    texts: list[str] = field(default_factory=list)
    thinking: str = ""
    calls: dict[int, Call] = field(default_factory=dict)
    logprobs: list[Any] = field(default_factory=list)
    finish_reason: str | None = None
    stop_text: str | None = None
    usage: dict[str, Any] | None = None
    timings: dict[str, Any] | None = None
    events: int = 0
    head: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The text of the answer, without thinking."""
        return "".join(self.texts)

    def take(self, events: Iterable[dict[str, Any]]) -> None:
        """Add what `events` say."""
        for event in events:
            self.events += 1
            self.head = self.head or _head(event)
            self.add(delta_of(self.form, event))

    def add(self, delta: Delta) -> None:
        """Add what one event says."""
        if delta.text:
            self.texts.append(delta.text)
        self.thinking += delta.thinking
        for part in delta.calls:
            call = self.calls.setdefault(part.index, Call("", ""))
            call.id, call.name = call.id or part.id, call.name or part.name
            call.arguments += part.arguments
        self.logprobs += delta.logprobs
        self.finish_reason = delta.finish_reason or self.finish_reason
        self.stop_text = delta.stop_text or self.stop_text
        self.usage = delta.usage or self.usage
        self.timings = delta.timings or self.timings


class Due:
    """What is still to be said again of an answer that was cut."""

    def __init__(self, said: Said) -> None:
        self._text = said.text
        self._thinking = said.thinking
        self._calls = {index: replace(call) for index, call in said.calls.items()}

    def new(self, delta: Delta) -> Delta:
        """What `delta` adds to what was said; raises Diverged when it says something else."""
        text, self._text = _beyond(delta.text, self._text)
        thinking, self._thinking = _beyond(delta.thinking, self._thinking)
        calls = tuple(part for part in map(self._new_call, delta.calls) if part is not None)
        if delta.finish_reason is not None and self._is_open():
            raise Diverged
        return replace(delta, text=text, thinking=thinking, calls=calls)

    def _new_call(self, part: CallPart) -> CallPart | None:
        """Names must agree; ids are drawn anew each time, so the first one stays."""
        call = self._calls.get(part.index)
        if call is None:
            return part
        if part.name and part.name != call.name:
            raise Diverged
        arguments, call.arguments = _beyond(part.arguments, call.arguments)
        return CallPart(part.index, arguments=arguments) if arguments else None

    def _is_open(self) -> bool:
        calls = any(call.arguments for call in self._calls.values())
        return bool(self._text or self._thinking or calls)


def _beyond(said: str, due: str) -> tuple[str, str]:
    """What of `said` goes beyond `due`, and what of `due` is left."""
    again = min(len(said), len(due))
    if said[:again] != due[:again]:
        raise Diverged
    return said[again:], due[again:]


def delta_of(form: Form, event: dict[str, Any]) -> Delta:
    """What an event of the engine says."""
    if form == "plain":
        reason = (
            ("length" if event.get("stop_type") == "limit" else "stop")
            if event.get("stop")
            else None
        )
        return Delta(
            text=event.get("content") or "", finish_reason=reason, timings=event.get("timings")
        )
    choice = (event.get("choices") or [{}])[0]
    said = choice.get("delta") or {} if form == "chat" else {"content": choice.get("text")}
    return Delta(
        text=said.get("content") or "",
        thinking=said.get("reasoning_content") or "",
        calls=tuple(map(_call_part, said.get("tool_calls") or ())),
        logprobs=tuple((choice.get("logprobs") or {}).get("content") or ()),
        finish_reason=choice.get("finish_reason"),
        stop_text=(event.get(VERBOSE) or {}).get("stopping_word") or None,
        usage=event.get("usage"),
        timings=event.get("timings"),
    )


def _call_part(part: dict[str, Any]) -> CallPart:
    function = part.get("function") or {}
    return CallPart(
        part.get("index", 0),
        part.get("id") or "",
        function.get("name") or "",
        function.get("arguments") or "",
    )


def with_delta(form: Form, event: dict[str, Any], delta: Delta) -> dict[str, Any]:
    """`event`, saying what `delta` says instead."""
    if form == "plain":
        return event | {"content": delta.text}
    if not event.get("choices"):
        return event
    choice = dict(event["choices"][0])
    if form == "text":
        choice["text"] = delta.text
    else:
        choice["delta"] = wire_delta(delta)
    return event | {"choices": [choice]}


def wire_delta(delta: Delta) -> dict[str, Any]:
    """The `delta` of a chat's event."""
    said: dict[str, Any] = {}
    if delta.thinking:
        said["reasoning_content"] = delta.thinking
    if delta.text:
        said["content"] = delta.text
    if delta.calls:
        said["tool_calls"] = [wire_part(part) for part in delta.calls]
    return said


def wire_part(part: CallPart) -> dict[str, Any]:
    """A piece of a call in OpenAI's form."""
    begun = {"id": part.id, "type": "function"} if part.id else {}
    function = {"name": part.name} if part.name else {}
    if part.arguments:
        function["arguments"] = part.arguments
    return {"index": part.index, **begun, "function": function}


def _head(event: dict[str, Any]) -> dict[str, Any]:
    names = ("id", "object", "created", "model", "system_fingerprint")
    return {name: event[name] for name in names if name in event}
