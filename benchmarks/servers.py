"""Servers to measure: `myllm serve`, and llama-server alone with the same flags."""

from __future__ import annotations

import os
import queue
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from myllm.launcher.local.child_protocol import parse_state
from myllm.launcher.local.environment import engine_environment
from tests.serving import Serving, serving, short_home

_READY_S = 120.0
# The environment chooses the engine to measure; all other settings have their defaults.
_KEPT = ("llama_server", "llama_source", "cache_dir")


@contextmanager
def myllm_server(checkout: Path | None = None, **settings: object) -> Iterator[Serving]:
    """`myllm serve` with empty directories of its own; a setting of None keeps its default."""
    with (
        short_home() as home,
        serving(home, checkout=checkout, may_block=True, **kept_settings(**settings)) as server,
    ):
        yield server


def kept_settings(**settings: object) -> dict[str, object]:
    """The engine chosen by the environment, and these settings; one of None keeps its default."""
    kept = {name: os.environ.get(f"MYLLM_{name.upper()}") for name in _KEPT}
    return {name: value for name, value in (kept | settings).items() if value is not None}


@dataclass(frozen=True)
class BareEngine:
    """A llama-server without a supervisor, ready to answer."""

    socket: Path
    ready_s: float

    def client(self) -> httpx.Client:
        return engine_client(self.socket)


@contextmanager
def bare_engine(argv: list[str]) -> Iterator[BareEngine]:
    """Start llama-server with `argv` except for its address; the time starts before its exec.

    It reports readiness as it does to MyLLM, so the way of waiting favours neither side.
    """
    with tempfile.TemporaryDirectory(prefix="fl-") as folder:
        address = Path(folder) / "e.sock"
        started = time.monotonic()
        process = subprocess.Popen(
            [*_without_address(argv), "--host", str(address)],
            env=engine_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            yield BareEngine(address, _wait_ready(process) - started)
        finally:
            process.kill()
            process.communicate()


def _without_address(argv: list[str]) -> list[str]:
    at = argv.index("--host")
    return argv[:at] + argv[at + 2 :]


def _wait_ready(process: subprocess.Popen[str]) -> float:
    """The time at which the engine reported that it is ready. A thread keeps reading its output,
    because a full pipe would block it."""
    ready_times: queue.SimpleQueue[float] = queue.SimpleQueue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            state = parse_state(line)
            if state is not None and state.state == "ready":
                ready_times.put(time.monotonic())

    threading.Thread(target=read, daemon=True).start()
    try:
        return ready_times.get(timeout=_READY_S)
    except queue.Empty:
        raise RuntimeError(f"llama-server was not ready after {_READY_S:g} s") from None


def engine_client(address: Path) -> httpx.Client:
    """A client of an engine on its Unix socket."""
    return httpx.Client(
        transport=httpx.HTTPTransport(uds=str(address)), base_url="http://engine", timeout=60
    )


def slots_busy(engine: httpx.Client) -> int:
    """How many slots are busy, as the engine reports; it answers between two batches."""
    slots: list[dict[str, Any]] = engine.get("/slots").raise_for_status().json()
    return sum(bool(slot["is_processing"]) for slot in slots)


class Leaver:
    """A client that sends one streamed request and can leave at any moment."""

    def __init__(self, url: str, path: str, body: bytes) -> None:
        address = httpx.URL(url)
        self._socket = socket.create_connection((address.host, address.port or 80), timeout=60)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {address.host}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._socket.sendall(head.encode() + body)

    def wait_for_token(self) -> None:
        """Return once the first token has arrived."""
        seen = b""
        while b'"token":' not in seen:
            received = self._socket.recv(65536)
            assert received, f"the answer ended without a token: {seen[-300:]!r}"
            seen += received

    def has_token(self) -> bool:
        """Whether a token has arrived by now."""
        self._socket.setblocking(False)
        try:
            return b'"token":' in self._socket.recv(65536)
        except BlockingIOError:
            return False
        finally:
            self._socket.settimeout(60)

    def leave(self) -> float:
        """Close the connection; returns when that was."""
        self._socket.close()
        return time.monotonic()
