"""Counts requests: of each model, and of each route."""

from __future__ import annotations

from collections import Counter
from typing import Final

from myllm.errors import EngineDied, MyLLMError, Unavailable
from myllm.gateway.metrics.histogram import SECONDS, TOKENS, Histogram
from myllm.gateway.observers.observer import Observer
from myllm.gateway.request_record import GAP_BOUNDS, RequestRecord, client_left
from myllm.gateway.scheduling.suspects import MAX_DEATHS
from myllm.gateway.scheduling.tickets import Ticket
from myllm.supervisor.spec import InstanceKey

ABORTED: Final = "abort"
"""vLLM's finish reason of a request whose client has left."""
_COMPLETED: Final = "stop"
# Methods that become a label; a client may send any other word.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class ModelCounts:
    """The requests for one model in one role.

    All of them, by how they ended: `finished` by finish reason, which is `stop` for embeddings and
    scores, and `abort` if the client left. Failed requests are in `RequestCounts.errors` instead.
    The histograms leave them out. So do those of the first token, of the gaps and of the times
    around them for all but answers in text.
    """

    __slots__ = (
        "cached_tokens", "decode", "e2e", "finished", "first_token", "gaps", "generated_tokens",
        "generation", "prefill", "prompt", "prompt_tokens", "queue", "resumed",
    )  # fmt: skip

    def __init__(self) -> None:
        # A series must begin with 0, or its first increase is lost.
        self.finished = Counter({_COMPLETED: 0, "length": 0, ABORTED: 0})
        self.prompt_tokens = self.cached_tokens = self.generated_tokens = self.resumed = 0
        self.first_token, self.e2e = Histogram(SECONDS), Histogram(SECONDS)
        self.queue, self.prefill, self.decode = (Histogram(SECONDS) for _ in range(3))
        self.gaps = Histogram(GAP_BOUNDS)
        self.prompt, self.generation = Histogram(TOKENS), Histogram(TOKENS)

    def add(self, record: RequestRecord) -> None:
        """Count a request that has not failed."""
        reason = record.finish_reason or _COMPLETED
        self.finished[ABORTED if record.error is not None else reason] += 1
        self.prompt_tokens += record.prompt_tokens
        self.cached_tokens += record.cached_tokens
        self.generated_tokens += record.generated_tokens
        self.e2e.observe(record.seconds)
        if record.granted_at is not None:
            self.queue.observe(record.queued_s)
        self.prompt.observe(record.prompt_tokens)
        if record.model is not None and record.model.role == "generate":
            self._add_text(record)

    def _add_text(self, record: RequestRecord) -> None:
        self.generation.observe(record.generated_tokens)
        first, last = record.first_token_at, record.last_token_at
        if first is None or record.granted_at is None:
            return
        self.first_token.observe(first - record.began_at)
        self.prefill.observe(first - record.granted_at)
        if last is not None:
            self.decode.observe(last - first)
        if record.gaps is not None:
            self.gaps.add(record.gaps, record.gaps_s)

    def copy(self) -> ModelCounts:
        """Return counts that do not change with these."""
        same = ModelCounts.__new__(ModelCounts)
        for name in self.__slots__:
            value = getattr(self, name)
            setattr(same, name, value if isinstance(value, int) else value.copy())
        return same


class RequestCounts(Observer):
    """Counts all requests since the start of the server.

    `errors` are by model, None if the request named none that exists, and by the class of the
    error. `rejections` are those among them that got no slot or were over a limit. `http` counts
    by handler, method and status, and `http_seconds` by handler and method.
    """

    def __init__(self) -> None:
        self.models: dict[InstanceKey, ModelCounts] = {}
        self.errors: Counter[tuple[InstanceKey | None, str]] = Counter()
        self.rejections: Counter[tuple[InstanceKey | None, str]] = Counter()
        self.http: Counter[tuple[str, str, int]] = Counter()
        self.http_seconds: dict[tuple[str, str], Histogram] = {}

    def resumed(self, ticket: Ticket, death: EngineDied) -> None:
        if ticket.deaths < MAX_DEATHS:
            self._of(ticket.key).resumed += 1

    def request_ended(self, record: RequestRecord) -> None:
        method = record.method if record.method in _METHODS else "other"
        self.http[record.handler, method, record.status] += 1
        seconds = self.http_seconds.get((record.handler, method))
        if seconds is None:
            seconds = self.http_seconds[record.handler, method] = Histogram(SECONDS)
        seconds.observe(record.seconds)
        if record.has_failed:
            self._count_failure(record)
        elif record.model is not None and record.tickets:
            self._of(record.model).add(record)

    def _count_failure(self, record: RequestRecord) -> None:
        error = record.error
        if error is None or client_left(error):
            return  # a path or method that the API does not have
        kind = type(error).__name__ if isinstance(error, MyLLMError) else "InternalError"
        self.errors[record.model, kind] += 1
        has_no_slot = record.model is not None and record.granted_at is None
        if has_no_slot or isinstance(error, Unavailable):
            self.rejections[record.model, kind] += 1

    def _of(self, key: InstanceKey) -> ModelCounts:
        counts = self.models.get(key)
        if counts is None:
            counts = self.models[key] = ModelCounts()
        return counts

    def copy(self) -> RequestCounts:
        """Return counts that do not change with these."""
        same = RequestCounts()
        same.models = {key: counts.copy() for key, counts in self.models.items()}
        same.errors, same.rejections = self.errors.copy(), self.rejections.copy()
        same.http = self.http.copy()
        same.http_seconds = {key: each.copy() for key, each in self.http_seconds.items()}
        return same
