"""What has changed between two snapshots, as events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from myllm.gateway.snapshot import ModelSnapshot, Snapshot
from myllm.supervisor.spec import InstanceKey


class Change(NamedTuple):
    """An event that is not numbered yet."""

    name: str
    key: InstanceKey
    data: Mapping[str, Any]


@dataclass(frozen=True)
class View:
    """What the feed tells of a model in one role: the requests that wait and those that hold one of
    the `slots`; how far its load is, in percent (None: it does not load); its last error."""

    queued: int = 0
    busy: int = 0
    slots: int = 0
    percent: int | None = None
    error: str | None = None


Views = Mapping[InstanceKey, View]


def views_of(snapshot: Snapshot) -> Views:
    """The views of all models that were asked for."""
    return {model.key: _view(model) for model in snapshot.models}


def changes(before: Views, now: Views) -> Iterator[Change]:
    """Yield what has changed in queues, loads and errors."""
    for key, view in now.items():
        old = before.get(key, View())
        if view.percent is not None and view.percent != old.percent:
            yield loading(key, view.percent)
        if view.error is not None and view.error != old.error:
            yield failed(key, view.error)
        if (view.queued, view.busy, view.slots) != (old.queued, old.busy, old.slots):
            counts = {"queued": view.queued, "busy": view.busy, "slots": view.slots}
            yield Change("queue", key, about(key) | counts)


def loading(key: InstanceKey, percent: int) -> Change:
    """An engine of `key` has loaded so much of its model."""
    return Change("loading", key, about(key) | {"progress": percent / 100})


def failed(key: InstanceKey, error: str) -> Change:
    """An engine of `key` has died, or could not be started."""
    return Change("failed", key, about(key) | {"error": error})


def about(key: InstanceKey) -> dict[str, Any]:
    """The fields of every event about a model."""
    return {"model": key.model, "role": key.role}


def _view(model: ModelSnapshot) -> View:
    loads = [each.progress for each in model.engines if each.state == "loading"]
    return View(
        model.queued,
        sum(each.busy_slots for each in model.engines),
        sum(each.spec.slots for each in model.engines if each.is_ready),
        int(100 * max(loads)) if loads else None,
        model.last_error,
    )
