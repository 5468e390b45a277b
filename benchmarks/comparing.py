"""MyLLM against the engine itself and against llama.cpp's router: the table, and the bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

from benchmarks.contestants import Contestant
from benchmarks.driving import in_turn
from benchmarks.figures import Figure, median_of
from benchmarks.measuring import Cell, Load, percentile

DIRECT, ROUTER = "direct", "router"
V1, API = "MyLLM /v1", "MyLLM /api"
# The most CPU time a streamed token may cost the gateway, as a share of its cost in the router.
_MOST_CPU = {V1: 0.7, API: 1.0}
# MyLLM of another checkout, and the least share of its speed that this one must reach.
BEFORE = {V1: "before /v1", API: "before /api"}
_LEAST_OF_BEFORE = 0.95
# Short answers, so that there are many first tokens.
_TURN_TOKENS = 4

Cells = dict[tuple[Load, int, str], Cell]


def row(cell: Cell) -> dict[str, Any]:
    """The values of one line of the table: medians of the rounds, and sums of the failures."""
    return {
        "load": cell.load,
        "clients": cell.clients,
        "contestant": cell.contestant,
        "requests/s": round(cell.median("requests_s"), 1),
        "tokens/s": round(cell.median("tokens_s")),
        "first p50 ms": round(cell.first_ms(0.5), 1),
        "first p99 ms": round(cell.first_ms(0.99), 1),
        "gateway us/token": round(cell.median("gateway_us_per_token"), 1),
        "gateway us/request": round(cell.median("gateway_us_per_request")),
        "engine us/token": round(cell.median("engines_us_per_token")),
        "engine us/request": round(cell.median("engines_us_per_request")),
        "client us/token": round(cell.median("client_us_per_token"), 1),
        "gateway MB RSS": round(cell.median("gateway_mb")),
        "engine MB RSS": round(cell.median("engines_mb")),
        "wrong": cell.total("wrong"),
        "closed": cell.total("closed"),
    }


def table(cells: Cells) -> Table:
    """A line for each load, number of clients and contestant."""
    lines = [row(cell) for cell in cells.values()]
    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name, value in lines[0].items():
        left = isinstance(value, str)
        made.add_column(name.replace(" ", "\n"), justify="left" if left else "right", no_wrap=True)
    before = None
    for line in lines:
        if before is not None and before != (line["load"], line["clients"]):
            made.add_section()
        before = line["load"], line["clients"]
        made.add_row(*(str(value) for value in line.values()))
    return made


def compare(cells: Cells) -> list[Figure]:
    """Compare the measured loads with their bounds."""
    figures = []
    for load, clients in dict.fromkeys((load, clients) for load, clients, _ in cells):
        if load == "streams" and clients > 1:
            figures += _streams(cells, clients)
        elif load == "single" and clients == 16:
            figures += _single(cells, clients)
        figures += _of_before(cells, load, clients)
    return [*figures, *_failures(cells)] if cells else []


def _streams(cells: Cells, clients: int) -> list[Figure]:
    figures = []
    for ours in (V1, API):
        mine, name = cells["streams", clients, ours], f"{ours}, {clients} streams"
        for other, least in ((DIRECT, 0.9), (ROUTER, 1.15)):
            shares = _shares(mine, cells["streams", clients, other], "tokens_s")
            figures.append(
                median_of(f"{name}: tokens/s of {other}'s", shares, unit="x", least=least)
            )
        router = cells["streams", clients, ROUTER]
        shares = _shares(mine, router, "gateway_us_per_token")
        figures.append(
            median_of(f"{name}: CPU per token of router's", shares, _MOST_CPU[ours], "x")
        )
    return figures


def _single(cells: Cells, clients: int) -> list[Figure]:
    return [
        median_of(
            f"{ours}, {clients} clients, one token: requests/s of {other}'s",
            _shares(cells["single", clients, ours], cells["single", clients, other], "requests_s"),
            unit="x",
            least=least,
        )
        for ours in (V1, API)
        for other, least in ((DIRECT, 0.7), (ROUTER, 1.3))
    ]


def _of_before(cells: Cells, load: Load, clients: int) -> list[Figure]:
    """The speed of this checkout as a share of the other's, if there is another."""
    what = "tokens_s" if load == "streams" else "requests_s"
    return [
        median_of(
            f"{ours}, {load}, {clients} clients: {what.removesuffix('_s')}/s of before's",
            _shares(cells[load, clients, ours], cells[load, clients, before], what),
            unit="x",
            least=_LEAST_OF_BEFORE,
        )
        for ours, before in BEFORE.items()
        if (load, clients, before) in cells
    ]


def _shares(mine: Cell, other: Cell, what: str) -> list[float]:
    """The shares of each round, so that a temporary slowdown of the machine affects both sides."""
    pairs = zip(mine.rounds, other.rounds, strict=True)
    # A time too short for the clock counts as one tick.
    return [getattr(ours, what) / max(getattr(theirs, what), 1e-3) for ours, theirs in pairs]


def _failures(cells: Cells) -> list[Figure]:
    """Wrong answers; for MyLLM also kept connections that it closed without announcing it."""
    figures = []
    for ours in (V1, API):
        own = [cell for cell in cells.values() if cell.contestant == ours]
        failed = sum(cell.total("wrong") + cell.total("closed") for cell in own)
        bad = next((cell.bad for cell in own if cell.bad), "")
        figures.append(Figure(f"{ours}: failed requests in all of it", failed, "", 0, bad))
    return figures


def added(found: Sequence[Contestant], turns: int) -> list[Figure]:
    """What each gateway adds to the time to the first token of a single client."""
    driven = in_turn([each.stream(_TURN_TOKENS) for each in found], turns)
    times = {
        each.name: [percentile(seen.first_ms, share) for share in (0.5, 0.99)]
        for each, seen in zip(found, driven, strict=True)
    }
    direct, figures = times.pop(DIRECT), []
    for (name, took), seen in zip(times.items(), driven[1:], strict=True):
        bounds = (1.0, 5.0) if name in _MOST_CPU else (None, None)
        note = seen.bad or f"{turns} in turn; direct {direct[0]:.2f} and {direct[1]:.2f} ms"
        label = f"{name}, 1 client: added to the first token"
        figures += [
            Figure(f"{label}, median", took[0] - direct[0], "ms", bounds[0], note),
            Figure("  99th percentile", took[1] - direct[1], "ms", bounds[1]),
        ]
    return figures
