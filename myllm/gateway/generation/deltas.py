"""Reads what each event of an engine's stream adds to the answer.

The engine streams answers in three forms:

    chat    `/v1/chat/completions`: text, thinking, tool calls
    text    `/v1/completions`
    plain   llama.cpp's own `/completion` and `/infill`
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from myllm.gateway.generation.events import Call, CallPart
from myllm.gateway.generation.replay import Diverged, skip_sent

Form = Literal["chat", "text", "plain"]
VERBOSE = "__verbose"
"""The field of a `verbose` event that holds what the engine knows beyond OpenAI's fields."""


class Delta(NamedTuple):
    """What one event adds to an answer. A tuple, because one is made for every event, and a frozen
    dataclass takes three times as long to make.

    `usage` and `timings` are the engine's own. It sends `stop_text`, the stop string that ended the
    answer, only in `verbose` events.
    """

    text: str = ""
    thinking: str = ""
    calls: tuple[CallPart, ...] = ()
    logprobs: tuple[Any, ...] = ()
    finish_reason: str | None = None
    stop_text: str | None = None
    usage: dict[str, Any] | None = None
    timings: dict[str, Any] | None = None

    def has_content(self) -> bool:
        """Return whether it adds text, thinking or tool calls."""
        return bool(self.text or self.thinking or self.calls)


@dataclass
class StreamedAnswer:
    """An answer so far, accumulated from its deltas.

    `head` has the fields that all its events share, `texts` the pieces of text as they came.
    `events` and `pieces`, the events with content, are counted by `take`.
    """

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
    pieces: int = 0
    head: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The text of the answer, without thinking."""
        return "".join(self.texts)

    def take(self, events: Iterable[dict[str, Any]]) -> None:
        """Add the deltas of `events`."""
        for event in events:
            self.events += 1
            self.head = self.head or _head(event)
            delta = delta_of(self.form, event)
            self.pieces += delta.has_content()
            self.add(delta)

    def add(self, delta: Delta) -> None:
        """Add the delta of one event."""
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


class ReplayFilter:
    """Drops what was sent before from the deltas of a replay."""

    def __init__(self, sent: StreamedAnswer) -> None:
        self._text = sent.text
        self._thinking = sent.thinking
        self._calls = {index: replace(call) for index, call in sent.calls.items()}

    def unsent(self, delta: Delta) -> Delta:
        """Return the unsent part of `delta`; raises Diverged if it differs from what was sent."""
        text, self._text = skip_sent(delta.text, self._text)
        thinking, self._thinking = skip_sent(delta.thinking, self._thinking)
        calls = tuple(part for part in map(self._unsent_call, delta.calls) if part is not None)
        if delta.finish_reason is not None and self._has_unreplayed():
            raise Diverged
        return delta._replace(text=text, thinking=thinking, calls=calls)

    def _unsent_call(self, part: CallPart) -> CallPart | None:
        """Return the unsent part of a call, or None.

        Names must agree. The engine draws new ids on each run, so the first one stays.
        """
        call = self._calls.get(part.index)
        if call is None:
            return part
        if part.name and part.name != call.name:
            raise Diverged
        arguments, call.arguments = skip_sent(part.arguments, call.arguments)
        return CallPart(part.index, arguments=arguments) if arguments else None

    def _has_unreplayed(self) -> bool:
        calls = any(call.arguments for call in self._calls.values())
        return bool(self._text or self._thinking or calls)


class BegunFilter:
    """Drops the message that an answer continues, which most engines repeat first.

    Where a template ends every message, the engine begins a new one and repeats nothing.
    """

    def __init__(self, begun: str) -> None:
        self._expected = begun
        self._held = ""

    def unrepeated(self, delta: Delta) -> Delta:
        """Return `delta` without repeated text; text that may be repeated is held back."""
        if not self._expected:
            return delta
        text = self._held + delta.text
        if text.startswith(self._expected):
            text = text[len(self._expected) :]
            self._expected = self._held = ""
        elif self._expected.startswith(text) and delta.finish_reason is None:
            text, self._held = "", text
        else:
            self._expected = self._held = ""
        return delta._replace(text=text)


def delta_of(form: Form, event: dict[str, Any]) -> Delta:
    """Return what an event of the engine adds."""
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
    delta = choice.get("delta") or {} if form == "chat" else {"content": choice.get("text")}
    return Delta(
        text=delta.get("content") or "",
        thinking=delta.get("reasoning_content") or "",
        calls=tuple(map(_call_part, delta.get("tool_calls") or ())),
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


def _head(event: dict[str, Any]) -> dict[str, Any]:
    names = ("id", "object", "created", "model", "system_fingerprint")
    return {name: event[name] for name in names if name in event}
