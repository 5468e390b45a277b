"""What is counted of requests, and where: by hour, key and model."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, Literal, NamedTuple

HOUR_S: Final = 3600
DAY_S: Final = 24 * HOUR_S
Grouping = Literal["key", "model", "day"]
Group = str | int
"""The name of a key or model, or the beginning of a day (UTC) in seconds since 1970."""


class Place(NamedTuple):
    """Where requests are counted: the beginning of their hour (UTC), in seconds since 1970, the
    name of their key ("" on a server without keys), and that of their model."""

    hour: int
    key: str
    model: str


@dataclass(slots=True)
class Counts:
    """Sums over requests. `cached_tokens` are part of `prompt_tokens`; `slot_s` is for how many
    seconds slots were held; `errors` counts the requests that failed, which have no tokens."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    slot_s: float = 0.0
    errors: int = 0

    def add(self, other: Counts) -> None:
        """Add `other` to these counts."""
        self.requests += other.requests
        self.prompt_tokens += other.prompt_tokens
        self.cached_tokens += other.cached_tokens
        self.generated_tokens += other.generated_tokens
        self.slot_s += other.slot_s
        self.errors += other.errors


COUNTED: Final = tuple(field.name for field in fields(Counts))


@dataclass(frozen=True)
class UsageQuery:
    """Which counts are added up: of the hours that begin in `since` <= hour < `until`, of one key
    and model if they are given; one sum for each key, model or day."""

    by: Grouping
    since: int
    until: int
    key: str | None = None
    model: str | None = None

    def group(self, place: Place) -> Group | None:
        """Return the group to which `place` belongs; None if it is left out."""
        if not self.since <= place.hour < self.until:
            return None
        if self.key not in (None, place.key) or self.model not in (None, place.model):
            return None
        return place.hour - place.hour % DAY_S if self.by == "day" else getattr(place, self.by)
