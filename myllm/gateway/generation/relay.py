"""Answers whose events are passed on as the engine sends them, and yet outlive their engine.

No token is parsed: the blocks of the stream are kept, and read only when it is cut. A chat or a
completion that is nothing but text then continues through `/completion`, in its own wire format.
Any other answer is replayed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from myllm.errors import EngineError
from myllm.gateway.conversation.adapt import is_plain
from myllm.gateway.conversation.messages import Messages
from myllm.gateway.engine_io import calls, transport
from myllm.gateway.engine_io.sse import LAST, event, events_in, split_at_progress
from myllm.gateway.gateway import Gateway, Lease
from myllm.gateway.generation.completion import Completion
from myllm.gateway.generation.deltas import Form, ReplayFilter, StreamedAnswer, delta_of
from myllm.gateway.generation.last_events import End, read_end
from myllm.gateway.generation.sampling import UNBOUNDED
from myllm.gateway.generation.survival import Resumable, SurvivingAnswer, can_be_continued
from myllm.gateway.generation.wire_deltas import WireEncoder, with_delta
from myllm.gateway.key_limits import estimates
from myllm.gateway.scheduling.tickets import Ticket
from myllm.gateway.usage import Usage, plain_usage
from myllm.supervisor.instance import Instance

# Kept blocks are added up beyond so many bytes, so that a long answer does not fill the memory.
_MAX_KEPT = 2**18
# So many are kept, because the end of an answer may come in several.
_LAST_BLOCKS = 4
CHAT: Final = "/v1/chat/completions"
_FORMS: dict[str, Form] = {CHAT: "chat", "/v1/completions": "text"}
# The sampler fields of a body have the same names on `/completion`; these are the others.
_NOT_FOR_COMPLETION = frozenset({"messages", "prompt", "stream_options", "max_tokens"})

PrepareMessages = Callable[[Instance], Awaitable[Messages]]
"""Chooses the messages of a chat, once an engine is there to count their tokens."""
OnProgress = Callable[[dict[str, Any]], None]
"""Called with the engine's `prompt_progress`: how much of the prompt it has read."""
OnCompleted = Callable[[Instance], None]
"""Called with the engine that completed an answer, while the slot is still held."""


class Relay:
    """One answer to `body` from `path`, as blocks of the engine's events.

    The body must have a seed, so that the answer can be replayed.
    """

    def __init__(
        self,
        gateway: Gateway,
        ticket: Ticket,
        path: str,
        body: dict[str, Any],
        prepare: PrepareMessages | None = None,
        completed: OnCompleted | None = None,
        progressed: OnProgress | None = None,
    ) -> None:
        answer = _RelayedAnswer(gateway, ticket, path, body, prepare, completed, progressed)
        self.form = answer.form
        self._ticket = ticket
        self._surviving = SurvivingAnswer(gateway, ticket, answer)
        self.detach = answer.detach

    @property
    def phase(self) -> str:
        """What it is doing or waiting for, in few words."""
        return self._surviving.phase

    def goes_on(self, whether: bool) -> None:
        """Note whether others of a request's several answers have begun before this one."""
        self._ticket.goes_on = whether

    def blocks(self) -> AsyncGenerator[bytes, None]:
        """Blocks of whole events, until the answer is complete.

        Raises what `SurvivingAnswer.parts` raises.
        """
        return self._surviving.parts()


class _RelayedAnswer(Resumable[bytes]):
    def __init__(
        self,
        gateway: Gateway,
        ticket: Ticket,
        path: str,
        body: dict[str, Any],
        prepare: PrepareMessages | None,
        completed: OnCompleted | None,
        progressed: OnProgress | None,
    ) -> None:
        self._gateway = gateway
        self._ticket = ticket
        self._path = path
        self._body = body
        self._prepare = prepare
        if prepare is None and path == CHAT and not is_plain(body["messages"]):
            self._prepare = self._fitted
        self._completed = completed
        self._progressed = progressed
        self.form: Form = _FORMS.get(path, "plain")
        self._is_plain = self.form == "plain"
        self._read: list[bytes] = []  # events that came while the engine read the prompt
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._sent = StreamedAnswer(self.form)  # without what is kept
        self._filter: ReplayFilter | None = None
        self._prompt = Usage()  # what the engine said of it while it read it
        self._end: End | None = None

    def detach(self) -> None:
        """Let go of what is to be called, when the answer is over: it may refer to this one."""
        self._prepare = self._completed = self._progressed = None

    async def open(self, lease: Lease, decode_s: float) -> AsyncGenerator[bytes, None]:
        instance = lease.instance
        if self._body.get("tools") and self._body.get("tool_choice") != "none":
            await calls.check_tools(instance)
        if self._prepare is not None:
            self._body["messages"] = await self._prepare(instance)
            self._prepare = None
        if self._sent.events:
            self.attempt, self._filter = "replaying", ReplayFilter(self._sent)
        body = self._ticket.enforced(self._body) | {"id_slot": lease.slot, "cache_prompt": True}
        if self._progressed is not None:
            body["return_progress"] = True
            self._read.clear()
        return transport.stream(instance, self._path, body)

    async def _fitted(self, instance: Instance) -> Messages:
        ignored = self._ticket.request.ignored
        return await self._gateway.templates.fitted(instance, self._body["messages"], ignored)

    def take(self, block: bytes) -> Sequence[bytes]:
        if self._progressed is not None:
            block = self._after_progress(block, self._progressed)
            if not block:
                return ()
        if self._filter is not None:
            block = self._unsent(self._filter, block)
            if not block:
                return ()
        # Quotation marks inside a text are escaped, so this cannot be part of one.
        has_ended = b'"stop":true' in block if self._is_plain else block.endswith(LAST)
        self._kept.append(block)
        self._kept_bytes += len(block)
        if has_ended:
            # Raises what a broken end is, before the client learns that its answer is whole.
            self._end = read_end(self.form, self._kept)
            self.timings = self._end.timings
        elif self._kept_bytes > _MAX_KEPT:
            self._add_up(_LAST_BLOCKS)
        return (block,)

    def _after_progress(self, block: bytes, progressed: OnProgress) -> bytes:
        """Return `block` unless the engine still reads the prompt.

        What came with its progress, such as the message that it continues, is sent with the answer.
        """
        read, rest = split_at_progress(block)
        if read:
            *_, last = events_in(read)
            progress = last["prompt_progress"]
            self.progress = f"reading {progress['processed']}/{progress['total']}"
            self._prompt = Usage(progress["total"], 0, progress["cache"])
            progressed(progress)
            self._read.append(read)
        if rest and self._read:
            rest = b"".join([*self._read, rest])
            self._read.clear()
        return rest

    def is_complete(self) -> bool:
        return self._end is not None

    async def completed(self, instance: Instance) -> None:
        if self._completed is not None:
            self._completed(instance)

    def after_cut(self) -> Resumable[bytes]:
        self._add_up()
        return self._continuation() if self._can_be_continued() else self

    def counts(self) -> tuple[Usage, str | None]:
        if self._end is not None:
            return self._end.usage, self._end.finish_reason
        with suppress(EngineError):
            if self._is_plain and self._kept:  # each of its events has the counts so far
                *_, last = events_in(self._kept[-1])
                return plain_usage(last), None
            self._add_up()
        pieces = self._sent.pieces
        if pieces and not self._prompt.prompt_tokens:  # the engine would have told at the end
            return Usage(estimates.prompt_tokens(self._body), pieces), None
        return replace(self._prompt, completion_tokens=pieces), None

    def _add_up(self, but: int = 0) -> None:
        """Read what is kept, but not the last few blocks."""
        read, self._kept = self._kept[: len(self._kept) - but], self._kept[len(self._kept) - but :]
        self._kept_bytes = sum(map(len, self._kept))
        for block in read:
            self._sent.take(events_in(block))

    def _unsent(self, replay: ReplayFilter, block: bytes) -> bytes:
        """Return the unsent part of `block`, as events of the answer that was begun."""
        events = []
        for each in events_in(block):
            delta = delta_of(self.form, each)
            new = replay.unsent(delta)
            is_repeated = delta.has_content() or _is_opening(self.form, each)
            if new.has_content() or not is_repeated:
                events.append(event(with_delta(self.form, each, new) | self._sent.head))
        if block.endswith(LAST):
            events.append(LAST)
        return b"".join(events)

    # Continuing through `/completion`

    def _can_be_continued(self) -> bool:
        sent, body = self._sent, self._body
        return (
            not self._is_plain
            and bool(sent.texts)
            and not (sent.thinking or sent.calls or sent.finish_reason)
            and isinstance(body.get("prompt", ""), str)
            and can_be_continued(body)
            and _is_plain_text(body)
        )

    def _continuation(self) -> Completion[bytes]:
        body = self._body
        fields = {name: body[name] for name in body if name not in _NOT_FOR_COMPLETION}
        fields["n_predict"] = body.get("max_tokens") or UNBOUNDED
        tells_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        is_verbose = bool(body.get("verbose"))
        encoder = WireEncoder(self.form, self._sent.head, tells_usage, is_verbose)
        return Completion(
            self._gateway, self._ticket, fields, self._build_prompt, encoder, self._sent.text
        )

    async def _build_prompt(self, instance: Instance) -> str:
        if self.form == "text":
            return str(self._body["prompt"])
        return await calls.apply_template(instance, self._body)


def _is_opening(form: Form, each: dict[str, Any]) -> bool:
    """Return whether this is a chat's first event, which has nothing but a role."""
    return form == "chat" and bool((each.get("choices") or [{}])[0].get("delta"))


def _is_plain_text(body: dict[str, Any]) -> bool:
    """Return whether the prompt is text that the engine renders, and the answer a new message.

    An answer that continues a message repeats that message first.
    """
    messages = body.get("messages") or ()
    contents = [message.get("content") for message in messages]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    if any(part.get("type") != "text" for part in parts):
        return False
    return not messages or messages[-1].get("role") != "assistant"
