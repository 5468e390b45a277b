"""Which threads of an engine wait for a free core, and which do not."""

from __future__ import annotations

import os
from pathlib import Path

from myllm.engine.types import Engine
from tests.serving import serving


def test_the_threads_that_compute_go_first(engine: Engine, home: Path) -> None:
    with serving(home, threads=2, slots=2) as server, server.client(60) as api:
        api.post("/api/models/demo/load").raise_for_status()
        ask = {"model": "demo", "prompt": "What", "stream": False}
        api.post("/api/generate", json=ask).raise_for_status()
        [process] = server.engines()
        policy = {thread.id: os.sched_getscheduler(thread.id) for thread in process.threads()}
        assert policy[process.pid] == os.SCHED_OTHER
        # One for each slot and four more, the one that listens, and one that writes the log.
        waiting = [thread for thread in policy if policy[thread] == os.SCHED_BATCH]
        assert 6 <= len(waiting) <= 8
        assert os.sched_getscheduler(server.process.pid) == os.SCHED_OTHER
