"""A real `myllm serve` for the tests: a separate process with its own directories and socket."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import psutil

from myllm.engine.engine import Engine
from myllm.engine.selfcheck_result import Verdict, Verdicts
from myllm.settings import Settings

START_S = 30.0
STOP_S = 20.0
# Ten times as long as the server buffers log lines.
LOG_LAG_S = 0.2


@dataclass
class Serving:
    """A running server: its process, its address and its directories."""

    process: subprocess.Popen[str]
    url: str
    home: Path

    @property
    def models_dir(self) -> Path:
        return self.home / "models"

    @property
    def log(self) -> str:
        """The log so far. The server writes it in a thread of its own, so wait a moment first."""
        time.sleep(LOG_LAG_S)
        return (self.home / "stderr.log").read_text()

    def client(self, timeout: float = 60) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=timeout, trust_env=False)

    def engines(self) -> list[psutil.Process]:
        """The engines of this server, without the tool that predicts their memory.

        A fork of the server that has not executed llama-server yet does not count: it shares the
        server's memory, and the server waits for it, so suspending it would suspend both.
        """
        server = psutil.Process(self.process.pid)
        none = (server.name(), "llama-fit-params", "")
        return [child for child in server.children() if _name(child) not in none]

    def engine_socket(self) -> Path:
        """The Unix socket of its only engine, for requests past the gateway."""
        [engine] = self.engines()
        arguments = engine.cmdline()
        return Path(arguments[arguments.index("--host") + 1])


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def environment(home: Path, **settings: object) -> dict[str, str]:
    """This process's environment with MyLLM's directories under `home`, and `settings`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MYLLM_") or name in ("MYLLM_LLAMA_SERVER", "MYLLM_CACHE_DIR")
    }
    own = {
        "MYLLM_MODELS_DIR": home / "models",
        "MYLLM_DATA_DIR": home / "data",
        "MYLLM_STATE_DIR": home / "state",
        "MYLLM_RUNTIME_DIR": home / "run",
        "MYLLM_CONFIG": home / "config.toml",
    }
    own |= {f"MYLLM_{name.upper()}": value for name, value in settings.items()}
    return kept | {name: str(value) for name, value in own.items()}


@contextmanager
def short_home() -> Iterator[Path]:
    """A directory with a path short enough for Unix sockets, which pytest's is not."""
    home = Path(tempfile.mkdtemp(prefix="ml-"))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def trust(server: Path, state_dir: Path) -> None:
    """Record in `state_dir` that `server` has passed the self-check on this CPU."""
    passed = Verdict(("F16",), {}, {}, "no quantizer", 0.1, time.time())
    own = Settings(_env_file=None, cache_dir=Path("/dev/null"), state_dir=state_dir)  # type: ignore[call-arg]
    Verdicts(own).keep(Engine(server, "setting", "", 0, "", ("CPU",)), passed)


@contextmanager
def serving(
    home: Path,
    *,
    module: str = "myllm",
    descriptors: tuple[int, int] | None = None,
    checkout: Path | None = None,
    may_block: bool = False,
    within: Sequence[str] = (),
    **settings: object,
) -> Iterator[Serving]:
    """Start `myllm serve` on a free port, and stop it with SIGTERM at the end. Fail with the stack
    if its event loop was blocked, unless it `may_block`.

    A `llama_server` of the test counts as checked, since most are written to fail later. `module`
    runs instead of `myllm`, with the same command line. `descriptors` are the soft and the hard
    limit on open files; `checkout` runs another checkout than this one. `within` is a command that
    becomes the server's, such as nsenter.
    """
    if "llama_server" in settings:
        trust(Path(str(settings["llama_server"])), home / "state")
    speeds = home / "state" / "prompt-speeds.json"
    _lend_speeds(speeds)
    with (home / "stderr.log").open("w") as stderr:
        process = subprocess.Popen(
            [*within, sys.executable, "-m", module, "serve", "--port", "0"],
            env=environment(home, **settings) | ({"PYTHONPATH": str(checkout)} if checkout else {}),
            cwd=home,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,  # SIGHUP reloads only without a terminal
            preexec_fn=partial(_limit_descriptors, descriptors) if descriptors else None,
        )
    try:
        yield Serving(process, _address(process, home), home)
    finally:
        stop(process)
        with contextlib.suppress(OSError):
            _known_speeds.update(json.loads(speeds.read_text()))
    if not may_block:
        never_blocked((home / "stderr.log").read_text())


def never_blocked(log: str) -> None:
    """Fail if a server's log reports a blocked event loop."""
    blocks = [line for line in log.splitlines() if "event loop blocked" in line]
    assert not blocks, "\n".join(blocks).replace("\\n", "\n")


def _limit_descriptors(limits: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# Measured by the servers of earlier tests, so that later ones need not compare batch sizes again.
_known_speeds: dict[str, object] = {}


def _lend_speeds(file: Path) -> None:
    if not file.exists():
        with contextlib.suppress(OSError):  # some tests make the folder unusable
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(_known_speeds))


def stop(process: subprocess.Popen[str]) -> int:
    """End a server; returns its exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        code = process.wait(STOP_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
    return code


def _address(process: subprocess.Popen[str], home: Path) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"https?://\S+", line)
    assert found, f"serve printed {line!r}: {(home / 'stderr.log').read_text()}"
    return found[0]


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> float:
    """Wait until `condition` holds; returns the seconds it took."""
    started = time.monotonic()
    while not condition():
        took = time.monotonic() - started
        assert took < timeout_s, f"{what}: not within {timeout_s} s"
        time.sleep(0.02)
    return time.monotonic() - started


def suspend(process: psutil.Process) -> None:
    """Stop a process and return once none of its threads runs any more."""
    process.suspend()
    wait_until(lambda: process.status() == psutil.STATUS_STOPPED, 10, "all threads stopped")
