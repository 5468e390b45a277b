"""One round of one load against one contestant: speed, CPU time of each process, memory."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import psutil

from benchmarks.contestants import STREAM_TOKENS, Contestant
from benchmarks.driving import Driven, drive, first_tokens

Load = Literal["streams", "single"]
_MB = 1_000_000


@dataclass(frozen=True)
class Round:
    """The result of one round. CPU times are in microseconds."""

    requests_s: float
    tokens_s: float
    gateway_us_per_token: float
    gateway_us_per_request: float
    engines_us_per_token: float
    engines_us_per_request: float
    client_us_per_token: float
    gateway_mb: float
    engines_mb: float
    first_ms: tuple[float, ...]
    wrong: int
    closed: int
    bad: str


@dataclass(frozen=True)
class Cell:
    """All rounds of one load, number of clients and contestant."""

    load: Load
    clients: int
    contestant: str
    rounds: tuple[Round, ...]

    def median(self, what: str) -> float:
        return statistics.median(float(getattr(each, what)) for each in self.rounds)

    def total(self, what: str) -> int:
        return sum(int(getattr(each, what)) for each in self.rounds)

    def first_ms(self, share: float) -> float:
        """The time to the first token that this share of all requests did not exceed."""
        return percentile([ms for each in self.rounds for ms in each.first_ms], share)

    @property
    def bad(self) -> str:
        """An example of a wrong answer, or an empty text."""
        return next((each.bad for each in self.rounds if each.bad), "")


def measure(contestant: Contestant, load: Load, clients: int, seconds: float) -> Round:
    """Load it at full speed, then once more to measure the first tokens."""
    target = contestant.stream() if load == "streams" else contestant.single()
    before = _cpu_us(contestant)
    driven = drive(target, clients, seconds)
    gateway, engines = (
        after - earlier for after, earlier in zip(_cpu_us(contestant), before, strict=True)
    )
    seen = first_tokens(target, clients, seconds / 2)
    tokens = _at_least_one(driven) * (STREAM_TOKENS if load == "streams" else 1)
    requests = _at_least_one(driven)
    return Round(
        requests_s=driven.good / driven.seconds,
        tokens_s=tokens / driven.seconds if driven.good else 0,
        gateway_us_per_token=gateway / tokens,
        gateway_us_per_request=gateway / requests,
        engines_us_per_token=engines / tokens,
        engines_us_per_request=engines / requests,
        client_us_per_token=1e6 * driven.cpu_s / tokens,
        gateway_mb=_rss_mb([contestant.gateway] if contestant.gateway else []),
        engines_mb=_rss_mb(contestant.engines),
        first_ms=seen.first_ms,
        wrong=driven.wrong + seen.wrong,
        closed=driven.closed + seen.closed,
        bad=driven.bad or seen.bad,
    )


def percentile(samples: Sequence[float], share: float) -> float:
    """The percentile of `samples`; 0 without samples."""
    ordered = sorted(samples)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def _at_least_one(driven: Driven) -> int:
    """The number of requests, at least 1, to avoid a division by zero when all fail."""
    return max(driven.good, 1)


def _cpu_us(contestant: Contestant) -> tuple[float, float]:
    """The CPU time that the gateway and the engines have used so far."""
    gateway = _used_us([contestant.gateway] if contestant.gateway else [])
    return gateway, _used_us(contestant.engines)


def _used_us(processes: Sequence[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return 1e6 * sum(each.user + each.system for each in times)


def _rss_mb(processes: Sequence[psutil.Process]) -> float:
    return float(sum(process.memory_info().rss for process in processes)) / _MB
