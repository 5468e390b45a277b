"""What counts as a blocked event loop; each test watches a separate process."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from myllm.engine.engine import Engine
from myllm.loop_watch import LIMIT_S, LoopWatch
from tests.loops import BLOCK_S
from tests.serving import Serving, serving, wait_until

pytestmark = pytest.mark.full  # each waits for seconds

HOG = "while True: pass"
# A `sitecustomize.py` with which a server sleeps in its loop's thread on SIGUSR2.
SLEEPER = """
import signal, time
def oversleeps(*_):
    time.sleep(0.6)
signal.signal(signal.SIGUSR2, oversleeps)
"""


@contextmanager
def loop(way: str, *before: str) -> Iterator[subprocess.Popen[str]]:
    """A watched event loop that will be blocked in that way."""
    process = subprocess.Popen(
        [*before, sys.executable, "-m", "tests.loops", way],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def blocks_of(process: subprocess.Popen[str], lasts_s: float = 2 * BLOCK_S) -> list[dict[str, Any]]:
    """Block the loop now; return the blocks that it logs, which must be as many as it counts."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    time.sleep(lasts_s)
    out, err = process.communicate("\n", timeout=60)
    logged = [json.loads(line) for line in err.splitlines()]
    assert [each["event"] for each in logged] == ["event loop blocked"] * int(out)
    return logged


@contextmanager
def hogs(cpu: int, count: int) -> Iterator[None]:
    """Keep that CPU busy with `count` programs."""
    pinned = ["taskset", "-c", str(cpu), sys.executable, "-c", HOG]
    running = [subprocess.Popen(pinned) for _ in range(count)]
    try:
        yield
    finally:
        for each in running:
            each.kill()
            each.wait()


@pytest.mark.parametrize("way", ["waits", "computes", "computes_in_c"])
def test_a_blocked_loop_is_logged_with_the_place(way: str) -> None:
    with loop(way) as process:
        blocks = blocks_of(process)
    assert all(LIMIT_S < each["seconds"] < 10 * BLOCK_S for each in blocks)
    places = [each["stack"] for each in blocks]
    assert any(re.search(rf"tests/loops.py:\d+ {way}\b", place) for place in places), places


def test_the_place_is_where_the_block_began() -> None:
    with loop("waits_and_goes_on") as process:
        blocks = blocks_of(process, 3 * BLOCK_S)
    assert re.search(r"tests/loops.py:\d+ waits\b", blocks[0]["stack"]), blocks


def test_a_thread_that_holds_the_gil_blocks_the_loop_too() -> None:
    with loop("another_thread_holds_the_gil") as process:
        assert blocks_of(process, 4 * BLOCK_S)


def test_many_short_callbacks_are_no_block() -> None:
    with loop("nothing") as process:
        assert blocks_of(process) == []


def test_a_process_that_was_stopped_was_not_blocked() -> None:
    with loop("nothing") as process:
        for _ in range(5):
            process.send_signal(signal.SIGSTOP)
            time.sleep(4 * LIMIT_S)
            process.send_signal(signal.SIGCONT)
            time.sleep(LIMIT_S)
        assert blocks_of(process) == []


@pytest.mark.more  # it takes the cores from tests that run at the same time
@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux counts how long a thread waits for a core"
)
def test_waiting_for_a_core_is_no_block() -> None:
    cpu = min(os.sched_getaffinity(0))
    with loop("nothing", "nice", "-n", "10") as process, hogs(cpu, 4):
        assert blocks_of(process, 4 * BLOCK_S) == []


@pytest.mark.more
def test_work_is_a_block_on_a_busy_machine_too() -> None:
    cpu = min(os.sched_getaffinity(0))
    with loop("computes_in_c", "taskset", "-c", str(cpu)) as process, hogs(cpu, 2):
        assert blocks_of(process, 8 * BLOCK_S)


def sleep_in_its_loop(server: Serving) -> None:
    """Block a server that has SLEEPER on its path, and wait until it has counted the block."""
    with server.client() as client:
        server.process.send_signal(signal.SIGUSR2)
        wait_until(lambda: _blocks(client) == 1, 20, "the block is counted")


def _blocks(client: httpx.Client) -> int:
    counted: dict[str, int] = client.get("/health").json()["incidents"]
    return counted.get("event loop blocked", 0)


def test_a_server_counts_its_blocks_and_its_test_fails(
    engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "sitecustomize.py").write_text(SLEEPER)
    monkeypatch.setenv("PYTHONPATH", f"{home}:{Path.cwd()}")
    with pytest.raises(AssertionError, match="oversleeps"), serving(home) as server:
        sleep_in_its_loop(server)


def test_a_suspended_server_counts_no_block(engine: Engine, home: Path) -> None:
    with serving(home) as server, server.client() as client:
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(1)
        server.process.send_signal(signal.SIGCONT)
        time.sleep(3 * LIMIT_S)
        assert _blocks(client) == 0


async def test_looking_at_the_stacks_keeps_no_frame() -> None:
    """The frames of a large request would stay until the garbage is collected."""

    class Held:
        """What a function of the loop's thread holds."""

    def look() -> weakref.ref[Held]:
        held = Held()
        with ThreadPoolExecutor(1) as other:
            assert "look" in other.submit(watch._stacks).result()["stack"]
        return weakref.ref(held)

    watch = LoopWatch()
    watch.start()
    gc.disable()
    try:
        assert look()() is None
    finally:
        gc.enable()
        watch.stop()
