"""One frame of `myllm top`: what it shows of a server, and how that fits a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from textwrap import wrap
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from myllm.cli.instances import COLUMNS, instance_row
from myllm.cli.requests import seconds
from myllm.cli.times import clock_time
from myllm.escaping import on_one_line

Json = dict[str, Any]
Cells = tuple[str, ...]
_LEAST_ROWS: Final = 1
_DEVICES = ("DEVICE", "MEASURED", "PREDICTED", "BUDGET", "FREE", "GPU")
_MODELS = ("MODEL", "ROLE", "STATE", "BUSY", "QUEUED", "MEMORY", "UNTIL")
_RUNNING = ("RUNNING", "KEY", "MODEL", "WAIT", "FIRST", "TOOK")
_ERRORS = ("FAILED", "KEY", "MODEL", "STATUS", "ERROR")
_RIGHT: Final = {"MEASURED", "PREDICTED", "BUDGET", "FREE", "GPU", "BUSY", "QUEUED", "MEMORY"} | {
    "WAIT", "FIRST", "TOOK",
}  # fmt: skip
# A long name must not push out the figures.
_LONG: Final = {"KEY", "MODEL"}


@dataclass(frozen=True)
class Seen:
    """What the server has told; `history` is None for a key that may not see it."""

    url: str
    health: Json
    instances: Sequence[Json]
    memory: Json
    history: Json | None
    running: Sequence[Json]
    failed: Sequence[Json]


def frame(seen: Seen, width: int, height: int | None) -> RenderableType:
    """Everything, in at most `height` lines (None: any number); what does not fit is counted."""
    sections = [
        (_DEVICES, [_device(seen, name) for name in seen.memory]),
        (_MODELS, [_model(one) for one in seen.instances]),
        (_RUNNING, [_request(one) for one in seen.running]),
        (_ERRORS, [_failure(one) for one in seen.failed]),
    ]
    filled = [(names, rows) for names, rows in sections if rows]
    # Each section has its headings and an empty line before them.
    least = (2 + _LEAST_ROWS) * len(filled)
    head = _wrapped(_head(seen), width, None if height is None else height - least)
    if height is None:
        most = [len(rows) for _, rows in filled]
    else:
        most = _shared([len(rows) for _, rows in filled], height - len(head) - 2 * len(filled))
    parts: list[RenderableType] = [*head]
    for (names, rows), count in zip(filled, most, strict=True):
        parts += [Text(), _table(names, rows, count, width)]
    return Group(*parts)


def _wrapped(lines: Sequence[str], width: int, most: int | None) -> list[Text]:
    """The lines, wrapped if that takes `most` lines at most (None: any number), else cut off."""
    wrapped = [part for line in lines for part in wrap(line, width, break_on_hyphens=False)]
    shown = lines if most is not None and len(wrapped) > most else wrapped
    return [Text(line, no_wrap=True, overflow="ellipsis") for line in shown]


def _shared(wanted: Sequence[int], lines: int) -> list[int]:
    """How many lines each section gets: one, and then one more each in turn while any wants it."""
    given = [min(each, _LEAST_ROWS) for each in wanted]
    left = lines - sum(given)
    while left > 0 and given != list(wanted):
        for index, each in enumerate(wanted):
            if given[index] < each and left > 0:
                given[index] += 1
                left -= 1
    return given


def _table(names: Cells, rows: Sequence[Cells], lines: int, width: int) -> Table:
    """The rows in so many lines; the last one says how many there are besides."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", width=width)
    for name in names:
        table.add_column(
            name,
            justify="right" if name in _RIGHT and name != names[-1] else "left",
            no_wrap=True,
            overflow="ellipsis",
            max_width=width // 3 if name in _LONG else None,
            ratio=1 if name == names[-1] else None,
        )
    shown = rows if len(rows) <= lines else rows[: max(0, lines - 1)]
    for row in shown:
        table.add_row(*(Text(on_one_line(cell)) for cell in row))
    if len(shown) < len(rows):
        table.add_row(Text(f"and {len(rows) - len(shown)} more", "dim"))
    return table


def _head(seen: Seen) -> list[str]:
    health = seen.health
    up = timedelta(seconds=int(health["uptime_seconds"]))
    state = f"{health['active']} running, {health['queued']} queued, {health['status']}"
    lines = [f"MyLLM {health['version']} at {seen.url}, up {up}: {state}"]
    history = seen.history
    if history is not None and history["times"]:
        lines.append(_rates(history))
    return lines


def _rates(history: Json) -> str:
    steps = len(history["times"])
    read = sum(history["prompt_tokens_per_second"]) / steps
    written = sum(history["generated_tokens_per_second"]) / steps
    median = [each for each in history["first_token_seconds"]["median"] if each is not None]
    first = f", first {seconds(median[-1])}" if median else ""
    return (
        f"Last minute: {sum(history['requests'])} requests, {sum(history['errors'])} failed, "
        f"{_rate(read)} tok/s read, {_rate(written)} written{first}"
    )


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _device(seen: Seen, name: str) -> Cells:
    memory, history = seen.memory[name], seen.history or {}
    measured = history.get("memory", {}).get(name, {}).get("measured_mb", [])
    busy = history.get("gpu_utilization", {}).get(name, [])
    return (
        name,
        _mb(measured[-1] if measured else None),
        _mb(memory["taken_mb"]),
        _mb(memory["budget_mb"]),
        _mb(memory["free_mb"]),
        f"{busy[-1]:.0%}" if busy and busy[-1] is not None else "",
    )


def _model(one: Json) -> Cells:
    cells = dict(zip((column.heading for column in COLUMNS), instance_row(one), strict=True))
    return tuple(cells[name] for name in _MODELS)


def _request(one: Json) -> Cells:
    return (
        clock_time(one["began_at"]),
        one["key"] or one["address"],
        one["model"] or "",
        seconds(one["wait_seconds"]),
        seconds(one["first_token_seconds"]),
        seconds(one["seconds"]),
    )


def _failure(one: Json) -> Cells:
    return (
        clock_time(one["began_at"]),
        one["key"] or one["address"],
        one["model"] or one["path"],
        str(one["status"] or ""),
        one["error"] or "",
    )


def _mb(mib: int | None) -> str:
    return "" if mib is None else f"{mib} MB"
