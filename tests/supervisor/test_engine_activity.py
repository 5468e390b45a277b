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
from myllm.supervisor.engine_activity import Observed
from myllm.supervisor.hang_rules import Signs
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
    ("what", "signs"),
    [
        (LITTLE, Signs()),
        (COMPUTE, Signs(worked=True)),
        (MUCH, Signs(carried=True)),
        ("time.sleep(0.3)", Signs()),
    ],
)
def test_what_a_process_does(tmp_path: Path, what: str, signs: Signs) -> None:
    with started(tmp_path) as engine:
        engine.does("pass", tmp_path)
        observed = Observed(engine.shown)
        observed.look(ask_gpus=False)
        engine.does(what, tmp_path)
        seen = observed.look(ask_gpus=False)
        assert seen.carried is signs.carried
        if signs != Signs(carried=True):  # which takes some CPU, too
            assert seen == signs
        time.sleep(0.05)
        assert observed.look(ask_gpus=False) == Signs()


def test_a_gpu_that_works_counts_and_one_that_is_gone_does_not(tmp_path: Path) -> None:
    with started(tmp_path) as engine:
        engine.gpu_works = True
        engine.does("pass", tmp_path)
        observed = Observed(engine.shown)
        observed.look(ask_gpus=False)
        assert observed.look(ask_gpus=True) == Signs(worked=True)
        engine.shown.signs = 1
        assert observed.look(ask_gpus=True) == Signs(told=True)
    assert observed.look(ask_gpus=False) == Signs()
