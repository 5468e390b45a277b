"""`myllm serve` when its output is not read, or cannot be written."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from myllm.engine.engine import Engine
from tests.serving import START_S, environment, stop, wait_until

MORE_REDIRECTIONS = ("> >(true)", "2>/dev/full", "2>&-", "<&- >&- 2>&-")
SERVE = f'exec "{sys.executable}" -m myllm serve --port 0'


@pytest.fixture(autouse=True)
def _compiled(engine: Engine) -> None:
    """All of these start a server, which needs the engine."""


@contextmanager
def started(home: Path, redirections: str) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """A server whose streams bash redirects, and a client of it.

    The pipes that it inherits are never read.
    """
    process = subprocess.Popen(
        ["bash", "-c", f"{SERVE} {redirections}"],
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        with httpx.Client(base_url=url_of(process.pid), timeout=30, trust_env=False) as client:
            yield process, client
    finally:
        stop(process)
        assert process.stderr is not None
        process.stderr.close()


def url_of(pid: int) -> str:
    """The address where the server answers, which it cannot print itself."""
    server = psutil.Process(pid)

    def answers() -> bool:
        with contextlib.suppress(httpx.HTTPError, psutil.NoSuchProcess):
            return any(httpx.get(f"{url}/health").status_code == 200 for url in urls())
        return False

    def urls() -> list[str]:
        listening = [each for each in server.net_connections("tcp") if each.status == "LISTEN"]
        return [f"http://127.0.0.1:{each.laddr.port}" for each in listening]

    wait_until(answers, START_S, "a server that answers")
    return urls()[0]


def check_work(
    process: subprocess.Popen[str], client: httpx.Client, end: signal.Signals = signal.SIGTERM
) -> None:
    """Loads, answers and unloads succeed, and the server stops."""
    for _ in range(2):
        assert client.post("/api/models/demo/load").status_code == 200
        question = {"model": "demo", "prompt": "x", "stream": False, "options": {"max_tokens": 3}}
        assert client.post("/api/generate", json=question).status_code == 200
        assert client.post("/api/models/demo/unload").status_code == 200
    assert client.get("/api/instances").json()["instances"] == []
    assert client.post("/api/models/demo/load").status_code == 200
    children = psutil.Process(process.pid).children()
    engines = [each for each in children if "llama" in each.name()]
    assert engines
    process.send_signal(end)
    assert process.wait(15) == 0
    assert not any(each.is_running() for each in engines)


@pytest.mark.parametrize(
    "redirections",
    [
        "2> >(head -c 600 >/dev/null)",
        ">&-",
        *(pytest.param(each, marks=pytest.mark.more) for each in MORE_REDIRECTIONS),
    ],
)
def test_streams_that_cannot_be_written_do_not_matter(home: Path, redirections: str) -> None:
    with started(home, redirections) as (process, client):
        for _ in range(20):
            assert client.get("/").status_code == 200
        check_work(process, client)


@pytest.mark.parametrize(
    ("redirections", "end"),
    [
        ("", signal.SIGTERM),
        pytest.param(">&2", signal.SIGINT, marks=pytest.mark.more),  # which prints to stdout
    ],
)
def test_an_unread_pipe_blocks_neither_requests_nor_signals(
    home: Path, redirections: str, end: signal.Signals
) -> None:
    with started(home, redirections) as (process, client):
        for _ in range(600):  # the lines of 320 requests fill a pipe
            assert client.get("/").status_code == 200
        check_work(process, client, end)


@pytest.mark.more
def test_unread_lines_are_dropped_and_counted(home: Path) -> None:
    path = "/" + 3000 * "x"
    with started(home, "") as (process, client):
        for _ in range(1600):  # more than the queue's 4 MiB and the pipe's 64 KiB
            assert client.get(path).status_code == 404
        assert process.stderr is not None
        log = iter(process.stderr.readline, "")
        assert any('"event":"log lines dropped"' in line for line in log)


def test_the_last_lines_are_written_before_it_ends(home: Path) -> None:
    with started(home, "") as (process, client):
        assert client.post("/api/models/demo/load").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        assert process.stderr is not None
        log = process.stderr.read()
        stages = ["server listening", "server stopping", "engine stopped", "server stopped"]
        positions = [log.index(f'"event":"{stage}"') for stage in stages]
        assert positions == sorted(positions)


def test_where_it_listens_is_in_the_log_when_stdout_cannot_be_written(home: Path) -> None:
    with started(home, "> >(true)") as (process, client):
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        assert process.stderr is not None
        log = process.stderr.read()
        assert f'"url":"{str(client.base_url).rstrip("/")}"' in log
        assert "stdout cannot be written" in log
        assert "Traceback" not in log
