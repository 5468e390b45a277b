"""The walk-through of the page about keys: its commands, one after the other, on one server."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from myllm.engine.engine import Engine
from tests.api.credentials import port_of
from tests.pages import ROOT, scripts
from tests.serving import environment, serving

pytestmark = pytest.mark.full

PAGE = ROOT / "docs" / "keys-and-operations.md"
WALK = [each for each in scripts(PAGE) if (each.reason or "").startswith("a test of its own")]


def test_the_walk_through(engine: Engine, home: Path) -> None:
    assert len(WALK) == 4
    program = home / "bin" / "myllm"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m myllm "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    with serving(home) as server:
        port = port_of(server)
        typed = "".join(each.script for each in WALK)
        typed = typed.replace("localhost:8000", f"127.0.0.1:{port}")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", typed],
            env=environment(home, port=port) | {"PATH": f"{home / 'bin'}:{os.environ['PATH']}"},
            cwd=home, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for line in filter(None, "".join(each.prints for each in WALK).splitlines()):
        assert line in done.stdout
    assert done.stdout.count('"problems"') == 2, "both curls got the list of models"
    assert done.stdout.count("sk-myllm-") == 4, "three new keys and a rotated one"
    assert done.stdout.endswith("Revoked nightly-tests; servers refuse it within 2 seconds\n")
