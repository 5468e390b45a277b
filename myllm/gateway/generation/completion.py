"""Answers through the engine's own `/completion`, whose events report which tokens it produced.

The prompt is a text or tokens, and so is all that another engine needs to continue: the prompt and
the tokens behind the text that was sent.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

from myllm.gateway.engine_io import calls
from myllm.gateway.engine_io.token_spelling import spell
from myllm.gateway.gateway import Gateway, Lease
from myllm.gateway.generation import replay
from myllm.gateway.generation.events import Event, Finished, Token
from myllm.gateway.generation.survival import Resumable, SurvivingAnswer, can_be_continued
from myllm.gateway.generation.transcript import Transcript
from myllm.gateway.prompt.fit import Prompt
from myllm.gateway.prompt.too_long import too_long
from myllm.gateway.scheduling.tickets import Ticket
from myllm.gateway.usage import Usage
from myllm.sessions.kv_states import CachedPrefix
from myllm.supervisor.instance import Instance

P = TypeVar("P")
_E = TypeVar("_E", covariant=True)
BuildPrompt = Callable[[Instance], Awaitable[str | Prompt]]
"""Builds a raw prompt or a rendered one, once an engine is there to count its tokens."""


class Generation:
    """One answer as events.

    `fields` are those of `/completion`; `n_predict` must be among them, and a seed, so that the
    answer can be replayed.
    """

    def __init__(
        self, gateway: Gateway, ticket: Ticket, fields: dict[str, Any], build_prompt: BuildPrompt
    ) -> None:
        completion = Completion(gateway, ticket, fields, build_prompt, _Events())
        self._surviving = SurvivingAnswer(gateway, ticket, completion)

    @property
    def phase(self) -> str:
        """What it is doing or waiting for, in few words."""
        return self._surviving.phase

    def events(self) -> AsyncGenerator[Event, None]:
        """Tokens, then one Finished; raises what `SurvivingAnswer.parts` raises."""
        return self._surviving.parts()


class Encoder(Protocol[_E]):
    """Puts an answer into the form in which it is sent."""

    def texts(self, texts: Sequence[str]) -> Sequence[_E]:
        """Encode pieces of text that came at the same time."""
        ...

    def end(self, end: Finished) -> Sequence[_E]:
        """Encode the end of the answer."""
        ...


class _Events:
    """Encodes an answer as events."""

    def texts(self, texts: Sequence[str]) -> Sequence[Event]:
        if len(texts) == 1:
            return (Token(texts[0]),)
        return [*[Token(text, True) for text in texts[:-1]], Token(texts[-1])]

    def end(self, end: Finished) -> Sequence[Event]:
        return (end,)


class Completion(Resumable[P]):
    """One answer of `/completion`, which `encoder` puts into the form in which it is sent.

    It continues the text `sent`, if another format has sent some of the answer.
    """

    def __init__(
        self,
        gateway: Gateway,
        ticket: Ticket,
        fields: dict[str, Any],
        build_prompt: BuildPrompt,
        encoder: Encoder[P],
        sent: str = "",
    ) -> None:
        self._slot_cache = gateway.slot_cache
        self._ticket = ticket
        self._fields = fields
        self._build_prompt = build_prompt
        self._encoder = encoder
        self._adopted = sent
        self._can_be_continued = can_be_continued(fields)
        self._has_diverged = False
        self._transcript = Transcript(fields["n_predict"])
        self._cut: Transcript | None = None  # what is being replayed, as it was cut
        self._prompt: str | list[int] = ""
        self._digest: str | None = None  # of the model that the prompt was built for
        self._text: str | None = None  # of the prompt, if its slot is to remember it

    async def open(
        self, lease: Lease, decode_s: float
    ) -> AsyncGenerator[list[dict[str, Any]], None] | None:
        prompt = await self._prompt_for(lease.instance, decode_s)
        if self._transcript.is_complete():
            return None
        body = self._ticket.enforced(self._fields) | {
            "prompt": prompt,
            "n_predict": self._transcript.remaining,
            "id_slot": lease.slot,
            "cache_prompt": True,
            "return_progress": True,
        }
        return calls.complete(lease.instance, body)

    def take(self, block: list[dict[str, Any]]) -> Sequence[P]:
        texts = [text for event in block if (text := self._take(event))]
        return self._encoder.texts(texts) if texts else ()

    def _take(self, event: dict[str, Any]) -> str:
        if "prompt_progress" in event:
            progress = event["prompt_progress"]
            self.progress = f"reading {progress['processed']}/{progress['total']}"
        elif event["stop"]:
            self.timings = event.get("timings")
        return self._transcript.take(event)

    def is_complete(self) -> bool:
        return self._transcript.is_complete()

    def counts(self) -> tuple[Usage, str | None]:
        transcript = self._transcript
        if self._cut is not None and transcript.is_replaying():
            transcript = self._cut
        reason = transcript.finished().finish_reason if transcript.is_complete() else None
        return transcript.usage, reason

    def last_parts(self) -> Sequence[P]:
        return self._encoder.end(self._transcript.finished())

    # When the stream was cut

    def after_cut(self) -> Completion[P]:
        """A replay that was cut before it was through counts for nothing: what was sent stays."""
        if self._cut is not None and self._transcript.is_replaying():
            self._transcript = self._cut
        self._cut = None
        return self

    def continue_instead(self) -> bool:
        self._has_diverged = True
        return self._can_be_continued

    def ends_at_context_limit(self) -> bool:
        self.after_cut()
        if not self._transcript.produced:
            return False
        self._transcript.end_by_length()  # the last token had filled the context
        return True

    # The prompt

    async def _prompt_for(self, instance: Instance, decode_s: float) -> str | list[int]:
        """Decide how this engine goes on, and return the prompt for that."""
        transcript = self._transcript
        if self._digest != instance.spec.model.digest:  # another model may have other tokens
            await self._set_prompt(instance)
        if transcript.produced and await self._is_to_replay(instance, decode_s):
            self.attempt, self._cut = "replaying", copy.deepcopy(transcript)
            transcript.begin_replay()
            return self._prompt
        produced = await self._produced_ids(instance)
        transcript.begin_continuation()
        if not transcript.produced:
            return self._prompt
        self.attempt = "continuing"
        tokens = await self._prompt_tokens(instance)
        transcript.set_prompt_tokens(len(tokens))
        return tokens + produced

    async def _is_to_replay(self, instance: Instance, decode_s: float) -> bool:
        if not self._can_be_continued:
            return True
        if self._has_diverged:
            return False
        tokens = len(await self._prompt_tokens(instance))
        prompt_s = self._slot_cache.reading_s(instance, self._ticket, tokens)
        return replay.is_cheap(decode_s, prompt_s)

    async def _set_prompt(self, instance: Instance) -> None:
        built = await self._build_prompt(instance)
        if isinstance(built, Prompt):
            self._prompt, self._text = built.tokens, built.text
        else:
            self._prompt = built
        if self._adopted:
            self._transcript.adopt(self._adopted, await spell(instance, self._adopted))
            self._adopted = ""
        self._digest = instance.spec.model.digest

    async def _prompt_tokens(self, instance: Instance) -> list[int]:
        if isinstance(self._prompt, str):
            tokens = await calls.tokenize(instance, self._prompt, instance.spec.context_size)
            if not tokens.are_all:
                raise too_long(instance.spec, tokens.count)
            self._prompt = tokens.ids
        return self._prompt

    async def _produced_ids(self, instance: Instance) -> list[int]:
        """Return the tokens behind the text that was sent."""
        transcript = self._transcript
        if transcript.doubtful is not None:
            transcript.settle((await calls.spellings(instance, [transcript.doubtful]))[0][1])
        return transcript.ids({text: await spell(instance, text) for text in transcript.gaps()})

    # What the slot holds

    async def completed(self, instance: Instance) -> None:
        """Note what the slot has read and written, so that the next turn can begin with it."""
        if self._text is not None:
            self._note(instance, self._transcript.text, await self._produced_ids(instance))

    def cut_short(self, instance: Instance) -> None:
        """Note what the slot has read and written, without waiting for the engine.

        If it takes the engine to know the tokens that were sent, only the prompt is noted.
        """
        if self._text is None or not self._transcript.has_begun():
            return
        if self._transcript.is_spelled():
            self._note(instance, self._transcript.text, self._transcript.ids({}))
        else:
            self._note(instance, "", [])

    def _note(self, instance: Instance, answer: str, produced: list[int]) -> None:
        assert isinstance(self._prompt, list)
        assert self._text is not None
        self._slot_cache.record(
            instance,
            self._ticket,
            CachedPrefix.of(self._text + answer, (*self._prompt, *produced)),
            answer,
            self._transcript.cached_tokens,
        )
