"""Priorities for free cores: a server before its engine, computing threads before the others."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import psutil

from myllm.engine.engine import Engine
from myllm.launcher.local.priorities import GIVES_WAY
from tests.serving import serving


def test_the_threads_that_compute_go_first(engine: Engine, home: Path) -> None:
    with serving(home, threads=2, slots=2) as server, server.client(60) as api:
        api.post("/api/models/demo/load").raise_for_status()
        ask = {"model": "demo", "prompt": "What", "stream": False}
        api.post("/api/generate", json=ask).raise_for_status()
        [process] = server.engines()
        policy = {thread.id: os.sched_getscheduler(thread.id) for thread in process.threads()}
        assert policy[process.pid] == os.SCHED_OTHER
        # One thread for each slot and four more, the listening thread and the log writer.
        waiting = [thread for thread in policy if policy[thread] == os.SCHED_BATCH]
        assert 6 <= len(waiting) <= 8
        assert os.sched_getscheduler(server.process.pid) == os.SCHED_OTHER


def test_an_engine_gives_way_to_its_server_and_leaves_no_core(engine: Engine, home: Path) -> None:
    with serving(home) as server, server.client(60) as api:
        api.post("/api/models/demo/load").raise_for_status()
        [process] = server.engines()
        theirs = psutil.Process(server.process.pid).nice()
        assert {os.getpriority(os.PRIO_PROCESS, thread.id) for thread in process.threads()} == {
            theirs + GIVES_WAY
        }
        assert resource.prlimit(process.pid, resource.RLIMIT_CORE) == (0, 0)
        group = Path(f"/proc/{process.pid}/autogroup")
        text = group.read_text() if group.exists() else ""
        assert not text or text.endswith(f" nice {GIVES_WAY}\n")
