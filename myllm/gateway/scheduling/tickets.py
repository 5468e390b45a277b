"""What goes into the scheduler and comes out of it: tickets, plans and actions."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from myllm.errors import MyLLMError
from myllm.gateway.client import Client
from myllm.gateway.conversation.ignored import Ignored
from myllm.gateway.prompt.prefixes import Pieces
from myllm.gateway.request_record import RequestRecord, current
from myllm.gateway.scheduling.demand import Demand
from myllm.gateway.usage import Usage
from myllm.launcher.devices import MemoryByDevice
from myllm.sessions.session import SessionRef
from myllm.supervisor.spec import InstanceKey, InstanceSpec


@dataclass(frozen=True)
class RequestInfo:
    """What holds for a request whatever it asks of a model: its client, and how urgent it is.

    A higher `priority` goes first. `keep_alive_s` is how long the engine stays loaded afterwards:
    None leaves it to the model, and a negative number means forever. `record` is None for what the
    server does by itself. `ignored` collects what is left out of the prompt.
    """

    client: Client = field(default_factory=Client)
    priority: int = 0
    keep_alive_s: float | None = None
    record: RequestRecord | None = field(default_factory=current, compare=False)
    ignored: Ignored = field(default_factory=Ignored, compare=False)

    def ticket(self, key: InstanceKey, demand: Demand | None = None) -> Ticket:
        """A place in the queue of `key`, from now on."""
        return Ticket(key, time.monotonic(), self, demand=demand)


@dataclass(eq=False)
class Ticket:
    """One request's place: queued, then holding a slot of a run, then done.

    The queue: `enqueued_at` decides its place, and stays the same when its engine dies;
    `waits_since` bounds its wait; it is 0 until the scheduler is asked for a slot. `goes_on`: it is
    for a part of a request other than the first, and it never gives way when the queue is full.

    The slot: `run` and `slot` name it, and `granted_at` is when it first had one. `pieces` describe
    how its prompt begins (see `prefixes.py`), so that it gets a slot that has read the same.
    `begins`: nothing of its session is stored yet. `only_asks`: it queries the engine, and leaves
    what its slot has read alone. `untouched`: it left before the slot was its own.

    The answer: `has_output` once an engine has given it something; `answered_by` is the run that
    gave it something new last. Since `offered_at`, its client has not taken what it was handed;
    None while it waits for more. `gave_up`: its client left. `shares_prompt`: another ticket of its
    request counts the tokens of their prompt.

    The end, before `Observer.finished`: `usage` has the tokens so far, of the whole answer or of
    one that was cut, which has no `finish_reason`. The last four are as in the record.

    Deaths: `demand` is what it asks of the engine (a load asks nothing). `deaths` counts the
    engines that died under it since it last got something new, and `unexplained` those that died
    while they worked for it and for which no request was convicted. `verdict` is why it gets no
    other engine.
    """

    key: InstanceKey
    enqueued_at: float
    request: RequestInfo = field(default_factory=RequestInfo)
    session: SessionRef | None = None
    begins: bool = False
    pieces: Pieces = ()
    run: int | None = None
    slot: int | None = None
    deaths: int = 0
    waits_since: float = 0.0
    only_asks: bool = False
    untouched: bool = False
    granted_at: float | None = None
    offered_at: float | None = None
    goes_on: bool = False
    demand: Demand | None = None
    answered_by: int | None = None
    unexplained: int = 0
    verdict: MyLLMError | None = None
    gave_up: bool = False
    has_output: bool = False
    shares_prompt: bool = False
    usage: Usage | None = None
    finish_reason: str | None = None
    last_token_at: float | None = None
    gaps: list[int] | None = None
    gaps_s: float = 0.0

    async def reserve_tokens(self) -> None:
        """Reserve the tokens of its key that the whole request will probably take, if they are
        limited, unless that is done. Raises KeyLimitReached, and InvalidRequest if they are more
        than the limit.

        A ticket that `goes_on` waits until the first one has reserved them. If that is refused, it
        is cancelled with the rest of its request before it queues.
        """
        record, demand = self.request.record, self.demand
        if record is None or record.allowance is None or demand is None:
            return
        if self.goes_on:
            await record.allowance.is_reserved.wait()
        elif not (self.only_asks or demand.is_reserved):
            demand.is_reserved = True
            record.allowance.reserve(*await demand.tokens())

    def count_tokens(self, prompt: int, answer: int) -> None:
        """Correct that, now that its prompt is counted. Raises the same, the first time."""
        record = self.request.record
        if record is not None and record.allowance is not None:
            record.allowance.count(prompt, answer)

    def enforced(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return `body`, which is for an engine, with schemas that engines enforce."""
        return body if self.demand is None else self.demand.enforced(body)


@dataclass(frozen=True)
class Plan:
    """How an engine would be started; `need` may be a prediction or a measurement.

    `aliases` are the other names, untagged, by which requests can name its model while it runs.
    """

    spec: InstanceSpec
    need: MemoryByDevice
    keep_alive_s: float
    pinned: bool = False
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class MakePlan:
    """Find out what `key` needs and what is free now, and call `planned`.

    `smaller`: the last try did not fit, so an automatic context must be smaller.
    """

    key: InstanceKey
    smaller: bool = False


@dataclass(frozen=True)
class Start:
    """Start an engine; `run` is the id of its run from now on."""

    run: int
    plan: Plan


@dataclass(frozen=True)
class Drain:
    """The engine takes no new requests; `Stop` follows. `evicted_for` names the model that is to
    be loaded in its place."""

    run: int
    evicted_for: InstanceKey | None = None


@dataclass(frozen=True)
class Stop:
    """End the engine, whatever it is doing; `reason` is for the log."""

    run: int
    reason: str


@dataclass(frozen=True)
class Grant:
    """`ticket` holds the slot that it names from now on, until `release`."""

    ticket: Ticket


@dataclass(frozen=True)
class Reject:
    """`ticket` will not be served."""

    ticket: Ticket
    error: MyLLMError


@dataclass(frozen=True)
class Pause:
    """The client of `ticket` does not read its answer, and others wait: give its slot back
    (`release`), and let it go on with another `request` when its client reads again."""

    ticket: Ticket


@dataclass(frozen=True)
class KeepEngine:
    """The engine of `key` cannot be replaced, so it goes on."""

    key: InstanceKey
    error: MyLLMError


@dataclass(frozen=True)
class EngineExit:
    """How an engine ended. Without an `error` it was stopped.

    `crashed`: it was killed, and did not say why it exits. `delivered`: it had given a token to a
    request. `no_memory`: it could not get the memory that it needed. `loading_signal` is the signal
    that killed it before it was ready. `from_outside`: another process may have killed it.
    """

    error: MyLLMError | None = None
    crashed: bool = False
    delivered: bool = False
    no_memory: bool = False
    loading_signal: int | None = None
    from_outside: bool = False


Action = MakePlan | Start | Drain | Stop | Grant | Reject | Pause | KeepEngine
