"""Measure the promises about conversations: their KV cache and their store.

    python -m benchmarks.conversations [--json] [--only GROUP]

Prints one table and exits 1 when a bound is missed. docs/benchmarks.md says what
each figure means.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable

from benchmarks import restoring, storing, trimming
from benchmarks.figures import Figure, print_json, print_table
from myllm.engine.find import find_engine
from myllm.settings import load_settings

_GROUPS: dict[str, Callable[[], list[Figure]]] = {
    "restoring": restoring.measure,
    "trimming": trimming.measure,
    "storing": storing.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--only", choices=_GROUPS, action="append", help="only this group")
    args = parser.parse_args()
    # After a signal, this process still stops its servers.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    if find_engine(load_settings()) is None:
        parser.exit(2, "no engine to measure with; compile one: myllm engine build\n")
    figures: list[Figure] = []
    for name in args.only or _GROUPS:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        figures += _GROUPS[name]()
    (print_json if args.json else print_table)(figures)
    return 0 if all(figure.ok for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
