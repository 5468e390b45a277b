"""Measure the promises about startup, loading, leaks and cancelled requests.

    python -m benchmarks.first_light [--json] [--only GROUP] [--skip-big]

Prints one table and exits 1 when a bound is missed. docs/benchmarks.md says what
each figure means.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import cancelling, leaks, loading, startup
from benchmarks.figures import Figure, print_json, print_table
from myllm.engine.find import find_engine
from myllm.settings import load_settings

GROUPS = ("startup", "loading", "leaks", "cancelling", "big")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--skip-big", action="store_true", help="leave out the 1.1B model")
    parser.add_argument("--models-dir", type=Path, help="use the model `demo` of this folder")
    parser.add_argument("--only", choices=GROUPS, action="append", help="only this group")
    parser.add_argument("--requests", type=int, default=leaks.REQUESTS, help="of the leak check")
    args = parser.parse_args()
    # After a signal, this process still stops its servers.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    if find_engine(load_settings()) is None:
        parser.exit(2, "no engine to measure with; compile one: myllm engine build\n")
    groups = _groups(args.models_dir, args.requests)
    wanted = args.only or [name for name in GROUPS if not (name == "big" and args.skip_big)]
    figures: list[Figure] = []
    for name in wanted:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        figures += groups[name]()
    (print_json if args.json else print_table)(figures)
    return 0 if all(figure.ok for figure in figures) else 1


def _groups(models_dir: Path | None, requests: int) -> dict[str, Callable[[], list[Figure]]]:
    """The measurement of each of GROUPS."""
    return {
        "startup": startup.measure,
        "loading": lambda: loading.measure(models_dir),
        "leaks": lambda: leaks.measure(models_dir, requests),
        "cancelling": lambda: cancelling.measure_demo(models_dir),
        "big": cancelling.measure_big,
    }


if __name__ == "__main__":
    sys.exit(main())
