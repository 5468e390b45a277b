"""Measure what the gateway costs, compared with llama-server itself and with other gateways.

    python -m benchmarks.gateway [--json] [--only GROUP] [--rounds N] [--quick]
                                 [--litellm [PROGRAM]] [--before CHECKOUT] [--profile SVG]

Prints one table and exits 1 when a bound is missed. docs/benchmarks.md says what
each figure means.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import comparing, open_streams
from benchmarks.contestants import Contestant, contestants
from benchmarks.driving import has_wrk
from benchmarks.figures import Figure, print_json, print_table, show
from benchmarks.measuring import Cell, Load, Round, measure
from benchmarks.probing import more_files
from myllm.engine.find import find_engine
from myllm.settings import load_settings

_LOADS: tuple[Load, ...] = ("streams", "single")
GROUPS = (*_LOADS, "added", "open")
_CLIENTS = (1, 16, 64)
_ROUNDS, _TURNS, _OPEN_S = 3, 400, 10.0
_SECONDS: dict[Load, float] = {"streams": 3.0, "single": 2.0}
_QUICKER = 4
_BESIDE = Path(sys.executable).parent


def main() -> int:
    args = _arguments()
    # After a signal, this process still stops its servers.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    if find_engine(load_settings()) is None:
        sys.exit("no engine to measure with; compile one: myllm engine build")
    if not has_wrk():
        _say("no wrk (apt-get install wrk): the slower client in Python does its part too")
    spy = shutil.which("py-spy", path=f"{_BESIDE}:{os.environ['PATH']}")
    if args.profile and spy is None:
        sys.exit("no py-spy to profile with: pip install py-spy")
    wanted, quicker = args.only or GROUPS, _QUICKER if args.quick else 1
    rounds = args.rounds or (1 if args.quick else _ROUNDS)
    more_files()
    cells: comparing.Cells = {}
    figures: list[Figure] = []
    loads = [load for load in _LOADS if load in wanted]
    if loads or "added" in wanted:
        with contestants(args.litellm, args.before) as found, _profiled(found, spy, args.profile):
            cells = _measure(found, loads, rounds, quicker)
            if "added" in wanted:
                _say("added ...")
                figures += comparing.added(found, _TURNS // quicker)
    figures = comparing.compare(cells) + figures
    if "open" in wanted:
        _say("open ...")
        figures += open_streams.measure(_OPEN_S / quicker)
    if args.json:
        print_json(figures, cells=[comparing.row(cell) for cell in cells.values()])
    else:
        if cells:
            show(comparing.table(cells))
        print_table(figures)
    return 0 if all(figure.ok for figure in figures) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--only", choices=GROUPS, action="append", help="only this group")
    parser.add_argument("--rounds", type=int, help=f"of each load; default: {_ROUNDS}")
    parser.add_argument("--quick", action="store_true", help="one short round, to try it")
    parser.add_argument(
        "--litellm",
        nargs="?",
        const=str(_BESIDE / "litellm"),
        metavar="PROGRAM",
        help="LiteLLM's proxy too; needs litellm[proxy], or PROGRAM of another environment",
    )
    parser.add_argument(
        "--before", type=Path, metavar="CHECKOUT", help="MyLLM of another checkout too, to compare"
    )
    parser.add_argument("--profile", metavar="SVG", help="a flame graph of MyLLM, by py-spy")
    return parser.parse_args()


def _measure(
    found: Sequence[Contestant], loads: Sequence[Load], rounds: int, quicker: int
) -> comparing.Cells:
    """Measure all contestants in each round, and begin each round with another one."""
    made: dict[tuple[Load, int, str], list[Round]] = defaultdict(list)
    places = [(load, clients, each) for load in loads for clients in _CLIENTS for each in found]
    for number in range(rounds):
        first = number % len(found)
        for load, clients in dict.fromkeys((load, clients) for load, clients, _ in places):
            _say(f"round {number + 1} of {rounds}: {load}, {clients} clients ...")
            for each in (*found[first:], *found[:first]):
                took = measure(each, load, clients, _SECONDS[load] / quicker)
                made[load, clients, each.name].append(took)
    return {
        (load, clients, each.name): Cell(
            load, clients, each.name, tuple(made[load, clients, each.name])
        )
        for load, clients, each in places
    }


@contextmanager
def _profiled(found: Sequence[Contestant], spy: str | None, file: str | None) -> Iterator[None]:
    """Have py-spy sample MyLLM's gateway while it uses the CPU."""
    if spy is None or file is None:
        yield
        return
    [gateway] = {each.gateway.pid for each in found if each.gateway and each.name == comparing.V1}
    spying = subprocess.Popen([spy, "record", "--pid", str(gateway), "--output", file])
    try:
        yield
    finally:
        spying.send_signal(signal.SIGINT)
        spying.wait(30)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
