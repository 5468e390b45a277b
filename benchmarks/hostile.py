"""Attack servers in the ways that docs/limits.md names, and measure the effect on other clients.

    python -m benchmarks.hostile [--json] [--only GROUP]

Prints each figure when it is measured, then one table, and exits 1 when a bound is missed.
docs/benchmarks.md says what each figure means.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterable

from benchmarks import doubling, hanging, hostile_connections, isolation, poisoning
from benchmarks.figures import Figure, collected, print_json, print_table
from myllm.engine.find import find_engine
from myllm.settings import load_settings

_GROUPS: dict[str, Callable[[], Iterable[Figure]]] = {
    "connections": hostile_connections.measure,
    "doubling": doubling.measure,
    "hanging": hanging.measure,
    "poison": poisoning.measure,
    "isolation": isolation.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--only", choices=_GROUPS, action="append", help="only this group")
    args = parser.parse_args()
    # After a signal, this process still stops its servers.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    if find_engine(load_settings()) is None:
        sys.exit("no engine to measure with; compile one: myllm engine build")
    figures: list[Figure] = []
    for name in args.only or _GROUPS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        figures += collected(_GROUPS[name]())
    print_json(figures) if args.json else print_table(figures)
    return 0 if all(figure.ok for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
