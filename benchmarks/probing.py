"""Whether a server still answers under load, measured by a separate process."""

from __future__ import annotations

import multiprocessing
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from typing import Any

import httpx

from tests.serving import Serving

_PROBE_EVERY_S = 0.02
SAMPLE_EVERY_S = 0.05


@contextmanager
def probing(server: Serving) -> Iterator[list[float]]:
    """Request `/health` every 20 ms in a separate process; the list is filled at the end."""
    over = multiprocessing.Event()
    times: Any = multiprocessing.SimpleQueue()
    prober = multiprocessing.Process(target=_probe, args=(server.url, over, times), daemon=True)
    prober.start()
    time.sleep(1)  # until the process has begun
    found: list[float] = []
    try:
        yield found
    finally:
        over.set()
        found += times.get()
        prober.join(10)


@contextmanager
def sampling(look: Callable[[], float]) -> Iterator[list[float]]:
    """Call `look` every 50 ms; the list of its results is complete at the end."""
    samples: list[float] = []
    over = threading.Event()

    def sample() -> None:
        while True:
            samples.append(look())
            if over.wait(SAMPLE_EVERY_S):
                return

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield samples
    finally:
        over.set()
        sampler.join()


def _probe(url: str, over: Event, times: Any) -> None:
    took = []
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as api:
        while not over.is_set():
            began = time.monotonic()
            api.get("/health").raise_for_status()
            took.append(time.monotonic() - began)
            time.sleep(_PROBE_EVERY_S)
    times.put(took)


def more_files() -> None:
    """Raise the limit on open files, of which each connection takes one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
