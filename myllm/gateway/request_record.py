"""What is known of one HTTP request, from its head to its end.

`api/http/middleware.py` makes the record and reports it to the observers when the request has
ended; meanwhile `observers/record_keeping.py` fills in what the gateway does for it.
"""

from __future__ import annotations

import time
from asyncio import CancelledError
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from myllm.gateway.client import Client
from myllm.gateway.key_limits.allowance import Allowance
from myllm.supervisor.spec import InstanceKey

GAP_BOUNDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75,
    1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
"""Upper bounds, in seconds, of the times between pieces of text; one more count is of longer ones.

They are the bounds of vLLM's histogram, with three below them for small models.
"""


def no_gaps() -> list[int]:
    """Return a count of zero for each of GAP_BOUNDS, and for longer gaps."""
    return [0] * (len(GAP_BOUNDS) + 1)


@dataclass(slots=True, eq=False)
class RequestRecord:
    """One request. `began` is Unix time; all other times that end in `_at` are of the monotonic
    clock, and durations are in seconds.

    HTTP: `client` is None if it was refused before its client was known, which then has only an
    `address`; that of a key which is known and not valid has its name, and no rights. `allowance`
    is what it may take of its key's limits; None if it has none. `handler` is the path of its
    route, such as `/api/models/{name}`; "" if it has none. `status` is 0 if its client left before
    the head of the answer. `traceparent` is the header of that name, if its client may say which
    trace its requests belong to.

    The model: `model` is the one that it asked for first; None if it asked for none, or for one
    that does not exist. A request can have several tickets (see `observers/observer.py`): `tickets`
    counts those for an answer that got as far as the queue, not those for a query such as a count
    of tokens. The waits are those of the first ticket, and the others are sums. `queued_s` is how
    long it waited for its slot, of which `load_s` were spent on loading its model. `slot_s` is how
    long it held slots. `deaths` counts the engines that died under it, and `died_at` has the times.
    `left_out` is how many messages of the conversation did not fit into the context. `error` is why
    it failed: a MyLLMError, GeneratorExit or CancelledError if its client left, and any other
    exception for an internal error. It is None for a request that the API does not define, which
    has only a `status`.

    The tokens are those of the `usage` that the client got, if it got any: a prompt counts once
    for all its choices, and an answer that several engines generated counts once. An answer whose
    client left counts as far as it came (its prompt may be estimated), and one that failed has
    none. `finish_reason` is that of the first choice; embeddings and scores have none. From
    `first_token_at` to `last_token_at` the answer was written. `gaps` counts the times between one
    piece of text and the next, by GAP_BOUNDS, and `gaps_s` is their sum; the time in which an
    engine died and another one took over is left out.
    """

    id: str
    method: str
    path: str
    dialect: str
    address: str
    began: float = field(default_factory=time.time)
    began_at: float = field(default_factory=time.monotonic)
    traceparent: str | None = None
    client: Client | None = None
    allowance: Allowance | None = None
    handler: str = ""
    status: int = 0
    ended_at: float | None = None

    model: InstanceKey | None = None
    tickets: int = 0
    queued_s: float = 0.0
    load_s: float = 0.0
    granted_at: float | None = None
    first_token_at: float | None = None
    slot_s: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    finish_reason: str | None = None
    last_token_at: float | None = None
    gaps: list[int] | None = None
    gaps_s: float = 0.0
    deaths: int = 0
    died_at: list[float] | None = None
    left_out: int = 0
    error: BaseException | None = None

    @property
    def client_name(self) -> str:
        """The name of its key, or else its address, which is all that a refused request has."""
        return self.client.fair_id if self.client else self.address

    @property
    def tokens_per_s(self) -> float | None:
        """How fast its answer was written after the first token; None for one of a single token."""
        first, last = self.first_token_at, self.last_token_at
        if first is None or last is None or last <= first or self.generated_tokens < 2:
            return None
        return (self.generated_tokens - 1) / (last - first)

    @property
    def has_failed(self) -> bool:
        """Whether it got an error instead of an answer, or in the middle of one. A client that left
        early is no failure."""
        if self.error is None or client_left(self.error):
            return self.status >= 400
        return True

    @property
    def error_name(self) -> str | None:
        """The class of its error, or that its client left; None without an error."""
        if self.error is None:
            return None
        return "client left" if client_left(self.error) else type(self.error).__name__

    @property
    def first_token_s(self) -> float | None:
        """How long its first token took from the beginning of the request; None without one."""
        return None if self.first_token_at is None else self.first_token_at - self.began_at

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        return (self.ended_at or time.monotonic()) - self.began_at


def client_left(error: BaseException | None) -> bool:
    """Return whether the work for a request ended with `error` because its client has left."""
    return isinstance(error, GeneratorExit | CancelledError)


_current: ContextVar[RequestRecord | None] = ContextVar("request", default=None)


def current() -> RequestRecord | None:
    """The record of the request that this task answers; None outside of requests."""
    return _current.get()


def begin(record: RequestRecord) -> None:
    """Make `record` the current one of this task, and of all that it starts."""
    _current.set(record)
