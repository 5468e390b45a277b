"""Runs llama.cpp's own server tests twice, with llama-server and with MyLLM in its place.

The tests fetch their models from a hub. Here both sides run the same other models instead
(`llama_server_stand_in.py`), so tests of a model's words or token counts fail with llama-server,
too. A difference is a test that llama-server passes and MyLLM does not. `docs/llama-server.md`
lists them with the reasons; the exit status is 1 if one is missing there, or listed without need.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from myllm.engine.engine import Engine
from myllm.engine.find import find_engine
from myllm.engine.pinned_source import Pin, load_pin
from myllm.settings import load_settings

ROOT: Final = Path(__file__).resolve().parents[1]
_DOCS: Final = ROOT / "docs" / "llama-server.md"
_LISTED: Final = re.compile(r"`(test_\w+\.py::test_\w+)`")
_LOGS: Final = Path(tempfile.gettempdir())
_TESTS: Final = "tools/server/tests"
_FOLDERS: Final = (f"{_TESTS}/", "models/templates/")
FILES: Final = (
    *("basic", "chat_completion", "compat_anthropic", "compat_oai_responses", "completion"),
    *("embedding", "ignore_eos", "infill", "rerank", "security", "template"),
    *("tokenize", "tool_call", "vision_api"),
)
"""The files of tests that are run; the others test settings of llama-server's command line."""


def main(selected: Sequence[str]) -> int:
    """Run both sides and print what differs."""
    settings = load_settings()
    pin, engine = load_pin(), find_engine(settings)
    if engine is None:
        sys.exit("llama-server has not been compiled yet; run `scripts/myllm engine build`")
    with tempfile.TemporaryDirectory(prefix="llama-") as folder:
        tree = Path(folder)
        _unpack(pin, settings.cache_dir / "downloads", tree)
        sides = [
            _run(tree / _TESTS, side, engine, selected or FILES)
            for side in ("llama-server", "myllm")
        ]
    return _compare(*sides, whole=not selected)


def _unpack(pin: Pin, downloads: Path, tree: Path) -> None:
    """Unpack the tests and chat templates of the pinned source."""
    [archive] = downloads.glob(f"{pin.package.replace('-', '_')}-{pin.version}.tar.gz")
    with tarfile.open(archive) as source:
        for member in source:
            name = member.name.partition("/")[2].removeprefix(f"{pin.folder}/")
            if member.isfile() and name.startswith(_FOLDERS):
                member.name = name
                source.extract(member, tree, filter="data")


def _run(tests: Path, side: str, engine: Engine, selected: Sequence[str]) -> dict[str, str]:
    """Return the outcome of each test on one side."""
    outcomes = tests / f"{side}.jsonl"
    command = [sys.executable, "-m", "pytest", "-v", "-p", "scripts.llama_server_stand_in"]
    command += ["--timeout=40", "-n0", "--tb=short", "-m", "not slow", "--color=no"]
    command += [f"unit/test_{name}.py" for name in selected]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(tests)]),
        "STAND_IN_SIDE": side,
        "STAND_IN_OUTCOMES": str(outcomes),
        "LLAMA_SERVER_BIN_PATH": str(engine.server),
    }
    with (_LOGS / f"llama-server-tests-{side}.log").open("w") as log:
        subprocess.run(command, cwd=tests, env=environment, stdout=log, stderr=log, check=False)
    lines = outcomes.read_text().splitlines()
    return {each["test"]: each["outcome"] for each in map(json.loads, lines)}


def _compare(reference: dict[str, str], ours: dict[str, str], whole: bool) -> int:
    """Print the tests that differ; return 1 if the documentation lists others."""
    passing = {test for test, outcome in reference.items() if outcome == "passed"}
    left_out = {test for test in passing if ours.get(test) == "skipped"}
    passing -= left_out
    differing = sorted(test for test in passing if ours.get(test) != "passed")
    print(f"{len(reference)} tests; llama-server passes {len(passing)} with these models (and")
    print(f"{len(left_out)} more that need its own settings), MyLLM all but these:")
    _print(f"  {test}" for test in differing)
    names = {test.partition("[")[0] for test in differing}
    listed = set(_LISTED.findall(_DOCS.read_text()))
    missing, needless = names - listed, listed - names if whole else set[str]()
    _print(f"not in docs/llama-server.md: {name}" for name in sorted(missing))
    _print(f"needless in docs/llama-server.md: {name}" for name in sorted(needless))
    return 1 if missing or needless else 0


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
