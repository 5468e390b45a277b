"""Answers that outlive their engine.

When an engine dies under a request, the request takes a lease again, which starts a new
engine; and so it does when its lease was paused, because its client did not read. An answer that
was short until then is made again from its start, with the same seed, and goes on where it was cut
(`replay.py`). A longer one, or one that says something else the second time, goes on behind the
last token whose text was sent: the prompt is then the old one and the tokens produced so far. What
a prompt cannot carry (how far a grammar has come) is always made again, and fails if it says
something else.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import structlog

from myllm.errors import EngineDied, PromptTooLong
from myllm.gateway.engine_io import calls
from myllm.gateway.engine_io.token_spelling import spell
from myllm.gateway.gateway import Gateway, Lease
from myllm.gateway.generation import replay
from myllm.gateway.generation.events import Event, Token
from myllm.gateway.generation.replay import DecodeTimer, Diverged
from myllm.gateway.generation.transcript import Transcript
from myllm.gateway.prompt.fit import Prompt
from myllm.gateway.retries import record_death, require_same_model
from myllm.gateway.scheduling.tickets import Ticket
from myllm.sessions.kv_states import Remembered
from myllm.supervisor.batch_comparison import Reading
from myllm.supervisor.instance import Instance

_log = structlog.get_logger(__name__)
# What constrains an answer by its own beginning.
_NOT_CARRIED = frozenset({"json_schema", "grammar"})

# A raw prompt, or a rendered one. It is asked for once an engine is there to make it.
MakePrompt = Callable[[Instance], Awaitable[str | Prompt]]


class Generation:
    """One answer of the engine, from as many engines as it takes.

    `fields` are those of `/completion`; `n_predict` must be among them.
    """

    def __init__(self, gateway: Gateway, ticket: Ticket, fields: dict[str, Any]) -> None:
        self._gateway = gateway
        self._ticket = ticket
        self._fields = fields
        self._repeats = not _NOT_CARRIED.isdisjoint(fields)
        self._transcript = Transcript(fields["n_predict"])
        self._timer = DecodeTimer()
        self._may_replay = True
        self._cut: tuple[Transcript, DecodeTimer] | None = None  # what is being made again
        self._prompt: str | list[int] | None = None
        self._digest: str | None = None  # of the model that has read the prompt
        self._text: str | None = None  # of the prompt, if its slot is to remember it
        self._reading: str | None = None

    def begun(self, text: str, tokens: list[int], timer: DecodeTimer) -> None:
        """The answer goes on behind `text`, which these tokens spell; to be told before the
        prompt is."""
        self._transcript.adopt(text, tokens)
        self._timer = timer

    @property
    def phase(self) -> str:
        """What it is doing or waiting for, in few words."""
        if self._reading is not None:
            return self._reading
        waiting = self._gateway.phase(self._ticket)
        return f"restarting the engine, {waiting}" if self._ticket.deaths else waiting

    async def events(self, make_prompt: MakePrompt) -> AsyncGenerator[Event, None]:
        """Tokens, then one Finished.

        Raises what a lease raises, and EngineDied when three engines died with no new text
        between them, or when a repeated answer is not the one that was begun.
        """
        while not self._transcript.is_complete():
            try:
                async with (
                    self._gateway.lease(self._ticket) as lease,
                    lease.answering(self._attempt(lease, make_prompt)) as texts,
                ):
                    async for *more, last in texts:
                        self._ticket.offered_at = time.monotonic()
                        for text in more:
                            yield Token(text, more=True)
                        yield Token(last)
                        if lease.is_paused:
                            break
                        self._ticket.offered_at = None
                if lease.is_paused:
                    self._reading = None
                    self._end_replay()
            except EngineDied as death:
                self._reading = None
                self._end_replay()
                if not self._transcript.is_complete():
                    record_death(death, self._ticket)
            except Diverged:
                if self._repeats:
                    raise EngineDied(
                        "The answer was cut, and was begun in other words the second time; "
                        "please ask again"
                    ) from None
                _log.warning("answer not made again: it turned another way")
                self._may_replay = False
                self._end_replay()
        yield self._transcript.finished()

    async def _attempt(
        self, lease: Lease, make_prompt: MakePrompt
    ) -> AsyncGenerator[list[str], None]:
        """The texts that one engine adds, as many at once as have come, until the answer is
        complete."""
        self._reading = "reading the prompt"
        digest = lease.instance.spec.model.digest
        if self._digest != digest:
            if self._transcript.text or self._transcript.produced:
                require_same_model(self._digest, lease.instance)
            self._prompt, self._digest = None, digest  # another model may have other tokens
        if self._prompt is None:
            made = await make_prompt(lease.instance)
            if isinstance(made, Prompt):
                self._prompt, self._text = made.tokens, made.text
            else:
                self._prompt = made
        prompt = await self._prompt_now(lease.instance)
        if self._transcript.is_complete():
            return
        body = self._fields | {
            "prompt": prompt,
            "n_predict": self._transcript.remaining,
            "id_slot": lease.slot,
            "cache_prompt": True,
            "return_progress": True,
        }
        speed, delivered = Reading(self._gateway.supervisor.speeds, lease.instance), False
        try:
            async with aclosing(calls.complete(lease.instance, body)) as blocks:
                async for block in blocks:
                    texts = [text for event in block if (text := self._take(speed, event))]
                    if texts and not delivered:
                        delivered = True
                        self._gateway.delivered(lease, self._ticket)
                    if texts:
                        yield texts
        except PromptTooLong:
            self._end_replay()
            if not self._transcript.produced:
                raise
            self._transcript.end_by_length()  # the last token had filled the context
        except (GeneratorExit, asyncio.CancelledError):  # the client leaves
            self._remember_cut(lease.instance)
            raise
        if self._transcript.is_complete():
            await self._remember(lease.instance)
        else:
            raise EngineDied("The engine ended the answer without finishing it")

    async def _remember(self, instance: Instance) -> None:
        """Tell what the slot has read and written, so that the next turn can begin with it."""
        if self._text is not None:
            self._note(instance, self._transcript.text, await self._produced_ids(instance))

    def _remember_cut(self, instance: Instance) -> None:
        """As `_remember`, where nothing can be waited for: tokens that would have to be asked for
        are left out, and what comes before them is remembered."""
        if self._text is None or not self._transcript.has_begun():
            return
        if self._transcript.is_spelled():
            self._note(instance, self._transcript.text, self._transcript.ids({}))
        else:
            self._note(instance, "", [])

    def _note(self, instance: Instance, answer: str, produced: list[int]) -> None:
        assert isinstance(self._prompt, list)
        assert self._text is not None
        self._gateway.conversations.note(
            instance,
            self._ticket,
            Remembered.of(self._text + answer, (*self._prompt, *produced)),
            answer,
            self._transcript.cached_tokens,
        )

    async def _produced_ids(self, instance: Instance) -> list[int]:
        """The tokens behind the text that was sent."""
        transcript = self._transcript
        if transcript.doubtful is not None:
            transcript.settle((await calls.spellings(instance, [transcript.doubtful]))[0][1])
        return transcript.ids({text: await spell(instance, text) for text in transcript.gaps()})

    async def _prompt_now(self, instance: Instance) -> str | list[int]:
        """The prompt for this engine: the original one, and what was produced since unless that
        is made again."""
        assert self._prompt is not None
        transcript = self._transcript
        if self._repeats:
            transcript.start_over()
            return self._prompt
        if transcript.produced and self._may_replay and await self._replay_is_cheap(instance):
            self._cut = copy.deepcopy(transcript), self._timer
            self._timer = DecodeTimer()
            transcript.start_over()
            return self._prompt
        produced = await self._produced_ids(instance)
        transcript.go_on()
        if not transcript.produced:
            return self._prompt
        if isinstance(self._prompt, str):
            self._prompt = await calls.tokenize(instance, self._prompt)
        transcript.prompt_is(len(self._prompt))
        return self._prompt + produced

    async def _replay_is_cheap(self, instance: Instance) -> bool:
        assert self._prompt is not None
        if isinstance(self._prompt, str):
            self._prompt = await calls.tokenize(instance, self._prompt)
        conversations = self._gateway.conversations
        reading_s = conversations.reading_s(instance, self._ticket, len(self._prompt))
        return replay.is_cheap(self._timer.seconds, reading_s)

    def _end_replay(self) -> None:
        """Of what was sent nothing is lost, also when it was made again in part only."""
        self._timer.stop()
        if self._cut is not None and self._transcript.is_due():
            self._transcript, self._timer = self._cut
        self._cut = None

    def _take(self, speed: Reading, event: dict[str, Any]) -> str:
        """Tell clients how far the prompt is, and the supervisor how fast it was read."""
        if "prompt_progress" in event:
            progress = event["prompt_progress"]
            self._reading = f"reading {progress['processed']}/{progress['total']}"
        else:
            self._timer.tick(time.monotonic())
            if event["stop"] and "timings" in event:
                speed.done(event["timings"])
        return self._transcript.take(event)
