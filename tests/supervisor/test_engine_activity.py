"""What counts as work of a process, and what does not."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from myllm.launcher.local.usage import usage
from myllm.supervisor.engine_activity import ActivityMonitor
from myllm.supervisor.hang_rules import EngineActivity
from tests.serving import wait_until

_TAKES_ORDERS = "import sys, time\nfor line in sys.stdin: exec(line)"
MUCH = "open('state', 'wb').write(bytes(2**22))"
LITTLE = "print('a line', file=sys.stderr)"
COMPUTE = "exec('began = time.monotonic()\\nwhile time.monotonic() - began < 0.3: pass')"


class Engine:
    """A process that does what it is told, as an instance shows it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.gpu_works = False
        launched = SimpleNamespace(
            usage=lambda: usage(process.pid), is_working=lambda: self.gpu_works
        )
        self.shown: Any = SimpleNamespace(process=launched, signs=0, requests=0)

    def does(self, what: str, folder: Path) -> None:
        """Returns when it is done."""
        done = folder / "done"
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}; open({str(done)!r}, 'w').close()\n")
        self._process.stdin.flush()
        wait_until(done.exists, 20, what)
        done.unlink()


@contextmanager
def started(folder: Path) -> Iterator[Engine]:
    command = [sys.executable, "-c", _TAKES_ORDERS]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=folder
    )
    try:
        yield Engine(process)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("what", "activity"),
    [
        (LITTLE, EngineActivity()),
        (COMPUTE, EngineActivity(worked=True)),
        (MUCH, EngineActivity(did_io=True)),
        ("time.sleep(0.3)", EngineActivity()),
    ],
)
def test_what_a_process_does(tmp_path: Path, what: str, activity: EngineActivity) -> None:
    with started(tmp_path) as engine:
        engine.does("pass", tmp_path)
        monitor = ActivityMonitor(engine.shown)
        monitor.look(ask_gpus=False)
        engine.does(what, tmp_path)
        seen = monitor.look(ask_gpus=False)
        assert seen.did_io is activity.did_io
        if activity != EngineActivity(did_io=True):  # which takes some CPU, too
            assert seen == activity
        time.sleep(0.05)
        assert monitor.look(ask_gpus=False) == EngineActivity()


def test_a_gpu_that_works_counts_and_one_that_is_gone_does_not(tmp_path: Path) -> None:
    with started(tmp_path) as engine:
        engine.gpu_works = True
        engine.does("pass", tmp_path)
        monitor = ActivityMonitor(engine.shown)
        monitor.look(ask_gpus=False)
        assert monitor.look(ask_gpus=True) == EngineActivity(worked=True)
        engine.shown.signs = 1
        assert monitor.look(ask_gpus=True) == EngineActivity(reported=True)
    assert monitor.look(ask_gpus=False) == EngineActivity()
