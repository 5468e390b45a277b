"""Very many open streams: what the gateway uses, and whether it answers other requests."""

from __future__ import annotations

import psutil

from benchmarks.contestants import Contestant, myllm
from benchmarks.driving import first_tokens
from benchmarks.figures import Figure
from benchmarks.measuring import percentile
from benchmarks.models import micro_models_dir
from benchmarks.probing import more_files, probing, sampling

STREAMS = 500
_MB = 1_000_000


def measure(seconds: float, streams: int = STREAMS) -> list[Figure]:
    """Open a stream for each client; the engine answers 16, the others wait in the queue."""
    more_files()
    with myllm(micro_models_dir()) as server:
        process = psutil.Process(server.process.pid)
        asked = Contestant("", server.url, process, tuple(server.engines())).stream()
        with sampling(lambda: process.memory_info().rss / _MB) as peak, probing(server) as probes:
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
