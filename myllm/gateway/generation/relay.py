"""A stream of the engine that is passed on as it comes, and yet outlives its engine.

Nothing is parsed for a token: the bytes are kept, and read only when the engine dies. Then a
chat or a text that is nothing but text goes on as a `Generation` does, on `/completion`. What a
prompt cannot carry (a grammar, calls of tools, thinking, probabilities) is made again from the
start with the same seed, and goes on where it was cut, if it says the same.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import Any

from myllm.errors import EngineDied
from myllm.gateway.engine_io import calls
from myllm.gateway.engine_io.sse import LAST, event, events_in
from myllm.gateway.engine_io.token_spelling import spell
from myllm.gateway.gateway import Gateway, Lease
from myllm.gateway.generation.completion import Generation
from myllm.gateway.generation.deltas import (
    VERBOSE,
    Delta,
    Form,
    ReplayFilter,
    StreamedAnswer,
    delta_of,
)
from myllm.gateway.generation.events import Finished, Token
from myllm.gateway.generation.replay import DecodeTimer, Diverged
from myllm.gateway.generation.sampling import UNBOUNDED
from myllm.gateway.generation.wire_deltas import openai_usage, wire_delta, with_delta
from myllm.gateway.retries import record_death, require_same_model
from myllm.gateway.scheduling.tickets import Ticket
from myllm.supervisor.batch_comparison import Reading
from myllm.supervisor.instance import Instance

# More bytes than these are read and added up, so that a long answer does not fill the memory.
_MOST_KEPT = 2**18
_PATHS: dict[str, Form] = {"/v1/chat/completions": "chat", "/v1/completions": "text"}
# What makes an answer more than text, or cannot go on from a text.
_NOT_CARRIED = frozenset(
    {"tools", "response_format", "json_schema", "grammar", "logprobs", "n_probs"}
)
# The fields of a body that say how tokens are chosen have the same names on `/completion`.
_NOT_FOR_COMPLETION = frozenset({"messages", "prompt", "stream_options", "max_tokens"})


class Relay:
    """One answer to `body` from `path`, from as many engines as it takes.

    The body must have a seed, so that the same answer can be asked for again. `prepare` chooses
    its messages once an engine is there to count their tokens, and `ended` is told the engine
    that has made the last of the answer, while it still holds the slot.
    """

    def __init__(
        self,
        gateway: Gateway,
        ticket: Ticket,
        path: str,
        body: dict[str, Any],
        prepare: Callable[[Instance], Awaitable[list[dict[str, Any]]]] | None = None,
        ended: Callable[[Instance], None] | None = None,
    ) -> None:
        self._gateway = gateway
        self._ticket = ticket
        self._path = path
        self._body = body
        self._prepare = prepare
        self._ended = ended
        self.form: Form = _PATHS.get(path, "plain")
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._said = StreamedAnswer(self.form)
        self._digest: str | None = None  # of the model that has begun the answer
        self._reading = False
        self._timer = DecodeTimer()

    @property
    def phase(self) -> str:
        """What it is doing or waiting for, in few words."""
        if self._reading:
            return "reading the prompt"
        waiting = self._gateway.phase(self._ticket)
        return f"restarting the engine, {waiting}" if self._ticket.deaths else waiting

    def goes_on(self, whether: bool) -> None:
        """It is one of several answers to a request, and others of them have begun before it."""
        self._ticket.goes_on = whether

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        """Whole events, until the answer is complete.

        Raises what a lease raises, what the engine answers instead of a stream, and EngineDied
        when three engines died with nothing new between them, or when a repeated answer is not
        the one that was begun.
        """
        while True:
            if self._can_go_on():
                async with aclosing(self._go_on()) as blocks:
                    async for block in blocks:
                        yield block
                return
            try:
                async with (
                    self._gateway.lease(self._ticket) as lease,
                    lease.answering(await self._ask(lease)) as blocks,
                ):
                    speed = Reading(self._gateway.supervisor.speeds, lease.instance)
                    ended = False
                    async for block in blocks:
                        if self._reading:
                            self._has_delivered(lease)
                        self._timer.tick(time.monotonic())
                        if ended := self._is_end(block):
                            _measure(speed, block)
                        self._keep(block)
                        self._ticket.offered_at = time.monotonic()
                        yield block
                        if lease.is_paused:
                            break
                        self._ticket.offered_at = None
                    if not (ended or lease.is_paused):
                        raise EngineDied("The engine ended the answer without finishing it")
                    if self._ended is not None and not lease.is_paused:
                        self._ended(lease.instance)
                if ended:
                    return
                self._timer.stop()
                self._add_up()
            except EngineDied as death:
                self._reading = False
                self._timer.stop()
                record_death(death, self._ticket)
                self._add_up()
            except Diverged:
                raise EngineDied(
                    "The answer was cut, and was begun in other words the second time; "
                    "please ask again"
                ) from None

    async def _ask(self, lease: Lease) -> AsyncGenerator[bytes, None]:
        """The answer of one engine, without what was sent already."""
        self._reading = True
        instance = lease.instance
        if self._said.events:
            require_same_model(self._digest, instance)
        self._digest = instance.spec.model.digest
        if self._body.get("tools") and self._body.get("tool_choice") != "none":
            await calls.check_tools(instance)
        if self._prepare is not None:
            self._body["messages"] = await self._prepare(instance)
            self._prepare = None
        body = self._body | {"id_slot": lease.slot, "cache_prompt": True}
        blocks = calls.pass_on(instance, self._path, body)
        return self._repeated(blocks) if self._said.events else blocks

    def _has_delivered(self, lease: Lease) -> None:
        self._reading = False
        self._gateway.delivered(lease, self._ticket)

    async def _repeated(self, blocks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """What `blocks` say beyond what was sent."""
        due = ReplayFilter(self._said)
        async with aclosing(blocks):
            async for block in blocks:
                if new := self._beyond(due, block):
                    yield new

    def _beyond(self, due: ReplayFilter, received: bytes) -> bytes:
        """What of `received` is new, as events of the answer that was begun."""
        made = []
        for each in events_in(received):
            delta = delta_of(self.form, each)
            new = due.unsent(delta)
            if new.has_content() or not (delta.has_content() or _is_opening(self.form, each)):
                made.append(event(with_delta(self.form, each, new) | self._said.head))
        if received.endswith(LAST):
            made.append(LAST)
        return b"".join(made)

    # Going on behind a text

    def _can_go_on(self) -> bool:
        said = self._said
        return (
            self.form != "plain"
            and bool(said.texts)
            and not (said.thinking or said.calls or said.finish_reason)
            and isinstance(self._body.get("prompt", ""), str)
            and not any(self._body.get(name) for name in _NOT_CARRIED)
            and _is_plain_text(self._body)
        )

    async def _go_on(self) -> AsyncGenerator[bytes, None]:
        """The rest of the answer, in its own form."""
        said = self._said
        fields = {k: v for k, v in self._body.items() if k not in _NOT_FOR_COMPLETION}
        fields["n_predict"] = self._body.get("max_tokens") or UNBOUNDED
        generation = Generation(self._gateway, self._ticket, fields)

        async def make_prompt(instance: Instance) -> str:
            require_same_model(self._digest, instance)
            generation.begun(said.text, await spell(instance, said.text), self._timer)
            if self.form == "text":
                return str(self._body["prompt"])
            return await calls.apply_template(instance, self._body)

        async with aclosing(generation.events(make_prompt)) as events:
            async for each in events:
                if isinstance(each, Token):
                    yield self._event(Delta(text=each.text))
                elif isinstance(each, Finished):
                    yield b"".join(self._end(each))

    def _event(self, delta: Delta) -> bytes:
        finish = delta.finish_reason
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
        if self.form == "chat":
            choice["delta"] = wire_delta(delta)
        else:
            choice |= {"text": delta.text, "logprobs": None}
        verbose = {VERBOSE: {"stopping_word": delta.stop_text}} if self._body.get("verbose") else {}
        return event({"choices": [choice], **self._said.head, **verbose})

    def _end(self, end: Finished) -> Iterator[bytes]:
        yield self._event(Delta(finish_reason=end.finish_reason, stop_text=end.stop_text))
        if (self._body.get("stream_options") or {}).get("include_usage"):
            usage = openai_usage(end)
            yield event({"choices": [], **self._said.head, "usage": usage})
        yield LAST

    # What was sent

    def _keep(self, block: bytes) -> None:
        self._kept.append(block)
        self._kept_bytes += len(block)
        if self._kept_bytes > _MOST_KEPT:
            self._add_up()

    def _add_up(self) -> None:
        for block in self._kept:
            self._said.take(events_in(block))
        self._kept.clear()
        self._kept_bytes = 0

    def _is_end(self, block: bytes) -> bool:
        """Whether an answer ends with this block."""
        # Inside of a text its quotation marks are escaped, so this cannot be part of one.
        return b'"stop":true' in block if self.form == "plain" else block.endswith(LAST)


def _measure(speed: Reading, last: bytes) -> None:
    """Tell how fast the prompt was read; raises EngineError for what is no JSON, before the
    client is told that its answer is whole."""
    for each in events_in(last):
        if timings := each.get("timings"):
            speed.done(timings)


def _is_opening(form: Form, each: dict[str, Any]) -> bool:
    """A chat's first event says nothing but its role."""
    return form == "chat" and bool((each.get("choices") or [{}])[0].get("delta"))


def _is_plain_text(body: dict[str, Any]) -> bool:
    """Whether its prompt is a text that the engine renders, and the answer a new message.

    An answer that continues a message repeats that first.
    """
    messages = body.get("messages") or ()
    contents = [message.get("content") for message in messages]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    if any(part.get("type") != "text" for part in parts):
        return False
    return not messages or messages[-1].get("role") != "assistant"
