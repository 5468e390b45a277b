"""Measure the promises about many models, many clients and engines that die.

    python -m benchmarks.fleet [--json] [--only GROUP] [--kills N]

Prints one table and exits 1 when a bound is missed. docs/benchmarks.md says what
each figure means.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable

from benchmarks import cold_loads, crowd, kills, sharing
from benchmarks.figures import Figure, print_json, print_table
from myllm.engine.find import find_engine
from myllm.settings import load_settings

GROUPS = ("kills", "sharing", "cold", "leavers", "queue")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--only", choices=GROUPS, action="append", help="only this group")
    parser.add_argument("--kills", type=int, default=kills.KILLS, help="of the group `kills`")
    args = parser.parse_args()
    # After a signal, this process still stops its servers.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    if find_engine(load_settings()) is None:
        parser.exit(2, "no engine to measure with; compile one: myllm engine build\n")
    groups: dict[str, Callable[[], list[Figure]]] = {
        "kills": lambda: kills.measure(args.kills),
        "sharing": sharing.measure,
        "cold": cold_loads.measure,
        "leavers": crowd.measure_leavers,
        "queue": crowd.measure_full_queue,
    }
    figures: list[Figure] = []
    for name in args.only or GROUPS:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        figures += groups[name]()
    (print_json if args.json else print_table)(figures)
    return 0 if all(figure.ok for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
