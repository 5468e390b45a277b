"""Very many streams that are open at once: what the gateway takes, and whether it answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from benchmarks.contestants import Contestant, myllm
from benchmarks.driving import first_tokens
from benchmarks.figures import Figure
from benchmarks.measuring import percentile
from benchmarks.models import micro_models_dir
from benchmarks.probing import more_files, probing

STREAMS = 500
_MB = 1_000_000
_SAMPLE_EVERY_S = 0.05


def measure(seconds: float, streams: int = STREAMS) -> list[Figure]:
    """So many clients with a stream each; 16 are answered, the others wait in the queue."""
    more_files()
    with myllm(micro_models_dir()) as server:
        process = psutil.Process(server.process.pid)
        asked = Contestant("", server.url, process, tuple(server.engines())).stream()
        with _peak_mb(process) as peak, probing(server) as probes:
            driven = first_tokens(asked, streams, seconds)
    note = f"{driven.good} streams in {driven.seconds:.0f} s"
    tail = f"{len(probes)} asked, p50 {1000 * percentile(probes, 0.5):.1f} ms"
    failed = driven.wrong + driven.closed
    return [
        Figure(f"{streams} open streams: failed", failed, "", 0, driven.bad or note),
        Figure("  gateway's RSS at most", max(peak), "MB", 200),
        Figure("  /health, 99th percentile", percentile(probes, 0.99), "s", 0.05, tail),
        Figure("  /health, slowest", max(probes), "s", 0.05),
    ]


@contextmanager
def _peak_mb(process: psutil.Process) -> Iterator[list[float]]:
    """Samples of its RSS, all there at the end."""
    samples: list[float] = []
    over = threading.Event()

    def sample() -> None:
        while True:
            samples.append(process.memory_info().rss / _MB)
            if over.wait(_SAMPLE_EVERY_S):
                return

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield samples
    finally:
        over.set()
        sampler.join()
