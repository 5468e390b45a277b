"""Compare MyLLM and `llama-server -m MODEL`, both with default settings: prompts and answers.

    python -m benchmarks.defaults [--json] [--only GROUP] [--model NAME] [--rounds N] [--quick]

Prints one table and exits 1 when a bound is missed. docs/benchmarks.md says what
each figure means.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks import gaps
from benchmarks.default_sides import Side, Work, direct, myllm
from benchmarks.figures import Figure, print_json, print_table
from benchmarks.models import big_long_models_dir, smollm2_path
from myllm.engine.find import find_engine
from myllm.settings import load_settings

GROUPS = ("reading", "generating", "gaps")
_LEAST = {"reading": 0.95, "generating": 0.97}
# Repeat rounds for this long; each figure has at least one.
_MOST_S = {"smollm2": 25.0, "big": 20.0}
_MOST_ROUNDS, _LEAST_ROUNDS = 5, 1
_READING = [(tokens, clients) for tokens in (1000, 4000) for clients in (1, 4)]
_GENERATING = (1, 4, 12)
# Long enough that the start of an answer does not matter, short enough for all rounds.
_ANSWER_TOKENS = {"smollm2": 192, "big": 48}


@dataclass(frozen=True)
class Pair:
    """One round: seconds of both sides for the same work, and CPU time of MyLLM's own process."""

    direct_s: float
    myllm_s: float
    gateway_s: float


def main() -> int:
    args = _arguments()
    # After a signal, this process still stops its servers.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    engine = find_engine(load_settings())
    if engine is None:
        sys.exit("no engine to measure with; compile one: myllm engine build")
    wanted = args.only or GROUPS
    figures: list[Figure] = []
    for model in args.model or _MOST_S:
        gguf = _gguf(model)
        if {"reading", "generating"} & set(wanted):
            with _sides(engine.server, model, gguf) as sides:
                for work in _works(model, wanted, args.quick):
                    figures.append(_compare(model, work, sides, args.rounds or _MOST_ROUNDS))
        if "gaps" in wanted and model == "smollm2":
            _say(f"{model}: token gaps ...")
            figures += gaps.measure(engine.server, gguf, args.quick)
    print_json(figures) if args.json else print_table(figures)
    return 0 if all(figure.ok for figure in figures) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--only", choices=GROUPS, action="append", help="only this group")
    parser.add_argument("--model", choices=list(_MOST_S), action="append", help="only this model")
    parser.add_argument("--rounds", type=int, help=f"at most; default: {_MOST_ROUNDS}")
    parser.add_argument("--quick", action="store_true", help="one small figure each, to try it")
    return parser.parse_args()


def _gguf(model: str) -> Path:
    return (
        big_long_models_dir() / "big-long" / "big-long.gguf" if model == "big" else smollm2_path()
    )


@contextmanager
def _sides(server: Path, model: str, gguf: Path) -> Iterator[tuple[Side, Side]]:
    """llama-server alone and MyLLM, both with the model loaded and idle."""
    _say(f"{model}: starting both ...")
    with ExitStack() as running:
        yield running.enter_context(direct(server, gguf)), running.enter_context(myllm(gguf))


def _works(model: str, wanted: Sequence[str], quick: bool) -> list[Work]:
    works: list[Work] = []
    if "reading" in wanted:
        works += [Work("reading", tokens, clients) for tokens, clients in _READING]
    if "generating" in wanted:
        works += [Work("generating", _ANSWER_TOKENS[model], clients) for clients in _GENERATING]
    return [each for each in works if each.is_small()] if quick else works


def _compare(model: str, work: Work, sides: tuple[Side, Side], most_rounds: int) -> Figure:
    """Let both sides do the same work right after each other, and swap who begins each round, so
    that a temporary slowdown of the machine affects both."""
    _say(f"{model}: {work} ...")
    ends_at, pairs = time.monotonic() + _MOST_S[model], list[Pair]()
    while len(pairs) < most_rounds and (len(pairs) < _LEAST_ROUNDS or time.monotonic() < ends_at):
        pairs.append(_round(work, sides, swapped=len(pairs) % 2 == 1))
    ratio = statistics.median(each.direct_s / each.myllm_s for each in pairs)
    return Figure(
        f"{model}: {work}, of llama-server's speed",
        ratio,
        "x",
        note=_note(work, sides[1], pairs),
        least=_LEAST[work.kind],
    )


def _round(work: Work, sides: tuple[Side, Side], swapped: bool) -> Pair:
    took: dict[str, float] = {}
    gateway_s = 0.0
    for side in reversed(sides) if swapped else sides:
        before = _cpu_s(side.gateway)
        took[side.name] = asyncio.run(side.do(work))
        gateway_s += _cpu_s(side.gateway) - before
    return Pair(took[sides[0].name], took[sides[1].name], gateway_s)


def _note(work: Work, ours: Side, pairs: Sequence[Pair]) -> str:
    tokens = work.tokens * work.clients
    speeds = (
        tokens / statistics.median(each.direct_s for each in pairs),
        tokens / statistics.median(each.myllm_s for each in pairs),
    )
    ratios = [each.direct_s / each.myllm_s for each in pairs]
    gateway = statistics.median(each.gateway_s / each.myllm_s for each in pairs)
    return (
        f"{speeds[0]:.0f} and {speeds[1]:.0f} tokens/s; {len(pairs)} rounds, {min(ratios):.2f} to "
        f"{max(ratios):.2f}; batch {ours.batch}; gateway {gateway:.1%} of a core"
    )


def _cpu_s(process: psutil.Process | None) -> float:
    """Seconds of CPU time that a process has used so far."""
    if process is None:
        return 0.0
    times = process.cpu_times()
    return float(times.user + times.system)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
