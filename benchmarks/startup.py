"""How fast commands and the server start, and the memory of an idle server."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.figures import Figure, median_of
from benchmarks.servers import myllm_server

_ROUNDS = 5
_WRAPPER_ROUNDS = 9
_SETTLE_S = 3.0
_MB = 1_000_000
_ROOT = Path(__file__).parent.parent
# The imports that every server on these packages needs.
_LIBRARIES = (sys.executable, "-c", "import fastapi, uvicorn, httpx, pydantic_settings, typer")
_MYLLM = Path(sys.executable).with_name("myllm")


def measure() -> list[Figure]:
    """Startup times, and the memory of a started server."""
    return [*_serve(), *_version(), *_other_commands()]


@dataclass(frozen=True)
class Started:
    """A server that was started and did nothing for some seconds."""

    seconds: float
    cpu_s: float
    rss_mb: float


def started(checkout: Path | None) -> Started:
    """Start a server of `checkout`, or of this one, until it answers `/health`."""
    began = time.monotonic()
    with myllm_server(checkout) as server:
        with server.client() as client:
            client.get("/health").raise_for_status()
        wall = time.monotonic() - began
        process = psutil.Process(server.process.pid)
        used = process.cpu_times()
        time.sleep(_SETTLE_S)
        return Started(wall, used.user + used.system, process.memory_info().rss / _MB)


def _serve() -> list[Figure]:
    # The first start fills the disk cache and writes bytecode.
    _, *made = [started(None) for _ in range(1 + _ROUNDS)]
    walls, cpus = [each.seconds for each in made], [each.cpu_s for each in made]
    sizes = [each.rss_mb for each in made]
    return [
        median_of("serve: command to /health", walls, 1.0),
        median_of("  its CPU time", cpus),
        median_of("  its libraries alone", [_timed(*_LIBRARIES) for _ in range(_ROUNDS)]),
        median_of("serve: idle RSS, no model", sizes, 100.0, "MB"),
    ]


def _version() -> list[Figure]:
    """The time of the command alone, and what the checkout's start script adds."""
    _timed(_ROOT / "scripts" / "myllm", "--version")
    alone, added = [], []
    for _ in range(_WRAPPER_ROUNDS):
        alone.append(_timed(_MYLLM, "--version"))
        added.append(_timed(_ROOT / "scripts" / "myllm", "--version") - alone[-1])
    return [
        median_of("myllm --version", alone, 0.25),
        median_of("scripts/myllm adds to it", added, 0.3),
    ]


def _other_commands() -> list[Figure]:
    return [
        median_of(f"myllm {command}", [_timed(_MYLLM, command) for _ in range(_ROUNDS)])
        for command in ("--help", "list")
    ]


def _timed(*command: str | Path) -> float:
    started = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=600)
    return time.monotonic() - started
