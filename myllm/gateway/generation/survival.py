"""The loop that keeps an answer alive across the deaths of engines.

An answer takes a lease on a slot and streams what the engine generates. When the engine dies, the
answer takes another lease, for which the gateway starts another engine. It does the same when its
lease was paused because its client did not read. The client notices nothing but the wait: the next
engine either replays the answer or continues it (see `replay.py`).

    waiting ──> preparing ──> reading ────────> writing ──> complete
       ^            ├───────> replaying ──────────^
       │            └───────> continuing ─────────^
       │                          │               │
       └─── engine died, lease paused, diverged ──┘

    waiting      It queues, its engine loads, or its lease was paused and its client reads nothing.
    preparing    It has a slot; the prompt is rendered, and how to go on is decided.
    reading      The engine reads the prompt; nothing has been sent yet.
    replaying    The engine generates again what was sent. None of it is sent twice.
    continuing   The engine reads the prompt and the tokens produced so far.
    writing      The engine generates new text.
    complete     Nothing is missing. An engine's death may find the answer complete.

A short answer is replayed, which is exact. A longer one, or one whose replay diverged, continues
behind the last token whose text was sent. An answer that neither the prompt nor its tokens can
carry over (see `can_be_continued`) is always replayed, and fails if the replay diverges. An error
ends the loop in whatever state it is, and so does the third death without new text before it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import partial
from typing import Any, Final, Generic, Literal, TypeVar

import structlog

from myllm.errors import EngineDied, PromptTooLong
from myllm.gateway.gateway import Gateway, Lease
from myllm.gateway.generation.replay import DecodeTimer, Diverged
from myllm.gateway.retries import EndObserved, record_death, require_same_model
from myllm.gateway.scheduling.tickets import Ticket
from myllm.gateway.usage import Usage
from myllm.supervisor.batch_comparison import Reading
from myllm.supervisor.instance import Instance

_log = structlog.get_logger(__name__)
P = TypeVar("P")

Attempt = Literal["reading", "replaying", "continuing"]
"""How an engine begins its part of an answer."""
State = Literal["waiting", "preparing", "reading", "replaying", "continuing", "writing", "complete"]
_CUT_OR_COMPLETE: Final = frozenset[State]({"waiting", "complete"})
NEXT: Final[Mapping[State, frozenset[State]]] = {
    "waiting": _CUT_OR_COMPLETE | {"preparing"},  # an engine may die when its slot is entered
    "preparing": _CUT_OR_COMPLETE | {"reading", "replaying", "continuing"},
    "reading": _CUT_OR_COMPLETE | {"writing"},
    "replaying": _CUT_OR_COMPLETE | {"writing"},
    "continuing": _CUT_OR_COMPLETE | {"writing"},
    "writing": _CUT_OR_COMPLETE,
    "complete": frozenset(),
}
"""The states that may follow each one."""
# Fields of a request that constrain an answer by its own beginning, or make it more than text.
_NOT_CARRIED_OVER = (
    "json_schema", "grammar", "response_format", "tools", "logprobs", "n_probs",
)  # fmt: skip


def can_be_continued(fields: Mapping[str, Any]) -> bool:
    """Return whether an answer to a request with these `fields` can go on from its tokens alone."""
    # An empty schema is a constraint, too: it allows any JSON, and nothing else.
    return not any(fields.get(name) or fields.get(name) == {} for name in _NOT_CARRIED_OVER)


class Resumable(ABC, Generic[P]):
    """What has been sent of one answer, in one wire format, and how an engine goes on with it.

    P is the type of the parts that are sent. `attempt` is how the latest engine began,
    `progress` how far it has come with the prompt; `timings` are those that it reported at the end.
    """

    attempt: Attempt = "reading"
    progress: str = "reading the prompt"
    timings: Mapping[str, Any] | None = None

    @abstractmethod
    async def open(self, lease: Lease, decode_s: float) -> AsyncGenerator[Any, None] | None:
        """Return the stream in which an engine goes on, and set `attempt` accordingly.

        `decode_s` is how long it took to generate what was sent. None if nothing is missing.
        """

    @abstractmethod
    def take(self, block: Any) -> Sequence[P]:
        """Note a block of the stream and return what of it is to be sent.

        Raises Diverged if the block differs from what was sent.
        """

    @abstractmethod
    def is_complete(self) -> bool:
        """Return whether nothing is missing, so that no engine is needed any more."""

    @abstractmethod
    def after_cut(self) -> Resumable[P]:
        """Return the answer that the next engine goes on with: this one, or one in another format.

        Called when a stream was cut, for whatever reason.
        """

    def continue_instead(self) -> bool:
        """Never replay again, because a replay has diverged; False if the answer must replay."""
        return False

    def ends_at_context_limit(self) -> bool:
        """End the answer, if it has filled the context; False if its prompt alone is too long."""
        return False

    async def completed(self, instance: Instance) -> None:
        """Called when `instance` has completed the answer, while the slot is still held."""

    def cut_short(self, instance: Instance) -> None:
        """Called when the client leaves or the lease is paused, while the slot is still held."""

    @abstractmethod
    def counts(self) -> tuple[Usage, str | None]:
        """Return the token counts so far, and why the answer ended, which is None if it was cut."""

    def last_parts(self) -> Sequence[P]:
        """Return what is sent when the answer is complete and its slot is free."""
        return ()


class SurvivingAnswer(Generic[P]):
    """Runs `answer` to its end, on as many engines as it takes."""

    def __init__(self, gateway: Gateway, ticket: Ticket, answer: Resumable[P]) -> None:
        self.state: State = "waiting"
        self._gateway = gateway
        self._ticket = ticket
        self._answer = answer
        self._timer = DecodeTimer()
        self._has_sent = False
        self._digest: str | None = None  # of the model that has begun the answer

    @property
    def phase(self) -> str:
        """What the answer is waiting for, in few words, for people who watch the stream."""
        if self.state == "waiting":
            waiting = self._gateway.phase(self._ticket)
            return f"restarting the engine, {waiting}" if self._ticket.deaths else waiting
        return "writing" if self.state in ("writing", "complete") else self._answer.progress

    async def parts(self) -> AsyncGenerator[P, None]:
        """What is sent to the client, until the answer is complete.

        Raises what a lease raises, and what the engine answers instead of a stream. Raises
        EngineDied when three engines died with no new text between them, or when a replay differs
        from what was sent and the answer cannot be continued.
        """
        ticket, timer = self._ticket, self._timer
        with EndObserved(self._gateway, ticket, self._count):
            while not self._answer.is_complete():
                with _Surviving(self):
                    async with self._gateway.lease(ticket) as lease:
                        answer, stream = self._answer, await self._open(lease)
                        if stream is None:
                            break
                        speed = Reading(self._gateway.supervisor.speeds, lease.instance)
                        async with _Streaming(self, lease, stream):
                            async for block in stream:
                                parts = answer.take(block)
                                if answer.timings is not None:
                                    speed.done(answer.timings)
                                if not parts:
                                    continue
                                now = time.monotonic()
                                timer.tick(now)
                                if self.state != "writing":
                                    self._begin_writing(lease)
                                ticket.offered_at = now
                                for part in parts:
                                    yield part
                                if lease.is_paused:
                                    break
                                ticket.offered_at = None
        self._enter("complete")
        for part in self._answer.last_parts():
            yield part

    async def _open(self, lease: Lease) -> AsyncGenerator[Any, None] | None:
        """Return the engine's stream; None if nothing is missing."""
        self._enter("preparing")
        answer, instance = self._answer, lease.instance
        answer.progress = "reading the prompt"
        if self._has_sent:
            require_same_model(self._digest, instance)
        self._digest = instance.spec.model.digest
        stream = await answer.open(lease, self._timer.seconds)
        if stream is not None:
            self._enter(answer.attempt)
        return stream

    def _count(self) -> None:
        """Note in the ticket what the answer has come to."""
        ticket, timer = self._ticket, self._timer
        ticket.usage, ticket.finish_reason = self._answer.counts()
        ticket.last_token_at, ticket.gaps, ticket.gaps_s = timer.last, timer.gaps, timer.seconds

    def _begin_writing(self, lease: Lease) -> None:
        """The first new text of an engine has come."""
        self._has_sent = True
        self._enter("writing")
        self._gateway.delivered(lease, self._ticket)

    async def _stream_ended(self, lease: Lease, error: BaseException | None) -> bool:
        """Check that the answer is complete at the end of an engine's stream.

        Returns False if `error` has ended it.
        """
        answer = self._answer
        if isinstance(error, PromptTooLong):
            if not answer.ends_at_context_limit():
                return False
        elif error is not None:
            return False
        if answer.is_complete():
            if not lease.is_paused:
                await answer.completed(lease.instance)
        elif lease.is_paused:
            self._resume_later()
        else:
            raise EngineDied("The engine ended the answer without finishing it")
        return True

    def _survives(self, error: BaseException | None) -> bool:
        """Prepare for another engine if this one has died or its replay diverges."""
        if isinstance(error, EngineDied):
            self._resume_later()
            if not self._answer.is_complete():
                record_death(self._gateway, self._ticket, error)
        elif isinstance(error, Diverged):
            if not self._answer.continue_instead():
                raise EngineDied(
                    "The answer was cut, and was begun in other words the second time; "
                    "please ask again"
                ) from None
            _log.warning("answer continued: its replay diverged")
            self._resume_later()
        else:
            return False
        return True

    def _resume_later(self) -> None:
        """Wait for another lease."""
        self._timer.stop()
        self._answer = self._answer.after_cut()
        self._enter("waiting")

    def _enter(self, state: State) -> None:
        assert state in NEXT[self.state], f"{self.state} -> {state}"
        self.state = state


class _Surviving:
    """The context of one engine's part of an answer, which another engine may go on with."""

    def __init__(self, answer: SurvivingAnswer[Any]) -> None:
        self._answer = answer

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        return self._answer._survives(error)


class _Streaming:
    """The context in which an engine's stream is read; it is closed on every way out."""

    def __init__(
        self, answer: SurvivingAnswer[Any], lease: Lease, stream: AsyncGenerator[Any, None]
    ) -> None:
        self._answer = answer
        self._lease = lease
        cut_short = partial(answer._answer.cut_short, lease.instance)
        self._answering = lease.answering(stream, cut_short)

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        await self._answering.__aexit__(kind, error, traceback)
        return await self._answer._stream_ended(self._lease, error)
