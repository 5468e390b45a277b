"""What the keys used of the models: what `myllm usage` shows."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from pydantic import AfterValidator

from myllm.api.http.json_bodies import CheckedRoute
from myllm.api.shared.bounded import Name
from myllm.api.shared.dependencies import ClientDep, RegistryDep, UsageDep
from myllm.api.shared.timestamps import iso
from myllm.durations import parse_duration
from myllm.errors import Forbidden, InvalidRequest
from myllm.sessions.history import storable
from myllm.sessions.usage_counts import HOUR_S, Counts, Group, Grouping, UsageQuery
from myllm.threads import in_thread_if

router = APIRouter(prefix="/api", tags=["Usage"], route_class=CheckedRoute)
MOST: Final = 1000
"""As many sums as an answer has; its total has the others, too."""

_Filter = Annotated[Name, AfterValidator(storable)]


@router.get("/usage")
async def show_usage(
    book: UsageDep,
    registry: RegistryDep,
    client: ClientDep,
    by: Annotated[Grouping, Query(description="What to add up by.")] = "model",
    since: Annotated[
        Name, Query(description="How far back, such as `7d`, or a date or time (UTC).")
    ] = "7d",
    until: Annotated[Name, Query(description="Likewise; by default, now.")] = "0",
    key: Annotated[_Filter | None, Query(description="Only this key's.")] = None,
    model: Annotated[_Filter | None, Query(description="Only this model's.")] = None,
) -> dict[str, Any]:
    """Requests, tokens, time in slots and errors, in whole hours; users see those of their key."""
    now = time.time()
    first, end = _moment("since", since, now), _moment("until", until, now)
    if model is not None:
        model = await asyncio.to_thread(registry.name_of, model)
    query = UsageQuery(by, int(first - first % HOUR_S), int(end) + 1, key, model)
    if client.role != "admin":
        if key not in (None, client.key_name):
            raise Forbidden("Only admins see the usage of other keys; leave key out")
        query = replace(query, key=client.key_name)
    sums = await book.sums(query)
    shown = await in_thread_if(len(sums) > MOST, _added_up, by, sums)
    return {"by": by, "since": iso(query.since), "until": iso(end), **shown}


def _moment(name: str, text: str, now: float) -> float:
    """Return the time that `text` means; raises InvalidRequest that names the parameter."""
    try:
        back_s = parse_duration(text)
        if back_s >= 0:
            return max(0.0, now - back_s)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
        return max(0.0, (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"{name} must be a duration such as 7d or 12h, or a date such as 2026-01-31"
        ) from None


def _added_up(by: Grouping, sums: dict[Group, Counts]) -> dict[str, Any]:
    total = Counts()
    for each in sums.values():
        total.add(each)
    shown = [{by: _name(group)} | _shown(sums[group]) for group in _in_order(by, sums)[:MOST]]
    return {"usage": shown, "total": _shown(total)}


def _in_order(by: Grouping, sums: dict[Group, Counts]) -> list[Group]:
    """Return the days in their order, and keys and models by their tokens, most first."""
    if by == "day":
        return sorted(sums, key=int)
    return sorted(sums, key=lambda group: (-_tokens(sums[group]), str(group)))


def _name(group: Group) -> str:
    return group if isinstance(group, str) else iso(group)[: len("2026-01-31")]


def _tokens(counts: Counts) -> int:
    return counts.prompt_tokens + counts.generated_tokens


def _shown(counts: Counts) -> dict[str, Any]:
    return {
        "requests": counts.requests,
        "prompt_tokens": counts.prompt_tokens,
        "cached_tokens": counts.cached_tokens,
        "generated_tokens": counts.generated_tokens,
        "slot_seconds": round(counts.slot_s, 3),
        "errors": counts.errors,
    }
