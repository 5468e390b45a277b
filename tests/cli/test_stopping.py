"""Which signals stop `myllm serve`, and what it logs meanwhile."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from myllm.engine.engine import Engine
from tests.serving import START_S, Serving, environment, serving, wait_until

SERVE = [sys.executable, "-m", "myllm", "serve", "--port", "0"]
HI = [{"role": "user", "content": "Hello"}]


@pytest.fixture(autouse=True)
def _compiled(engine: Engine) -> None:
    """All of these start a server, which needs the engine."""


def events(server: Serving) -> list[dict[str, Any]]:
    """The events of its log."""
    return [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]


def stop_reasons(server: Serving) -> list[str]:
    """The reasons why its engines stopped, in order."""
    return [each["reason"] for each in events(server) if each["event"] == "engine stopped"]


def is_answering(client: httpx.Client) -> bool:
    return bool(client.get("/health").json()["active"])


# Terminals


class Terminal:
    """A server with a terminal of its own, and the other end of that terminal."""

    def __init__(self, home: Path) -> None:
        self.pid, self._end = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, SERVE, environment(home))
        self.shown = ""

    def read_until(self, pattern: str) -> str:
        """What the first group of `pattern` matches in what the terminal shows."""
        ends_at = time.monotonic() + START_S
        while not (found := re.search(pattern, self.shown)):
            assert time.monotonic() < ends_at, self.shown
            self.shown += os.read(self._end, 2**16).decode()
        return found[1]

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def hang_up(self) -> None:
        """Close the window."""
        os.close(self._end)
        self._end = -1

    def exit_code(self) -> int:
        """The exit code of the server, which must end now; unread output does not delay it."""
        ends_at = time.monotonic() + 20
        while True:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self.pid = -1
                return os.waitstatus_to_exitcode(status)
            assert time.monotonic() < ends_at, "it does not end"
            time.sleep(0.02)

    def clean_up(self) -> None:
        if self._end >= 0:
            os.close(self._end)
        if self.pid >= 0:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


@contextmanager
def on_terminal(home: Path) -> Iterator[tuple[Terminal, httpx.Client]]:
    terminal = Terminal(home)
    try:
        url = terminal.read_until(r"listens on (http://\S+) ")
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            yield terminal, client
    finally:
        terminal.clean_up()


def loaded_engines(terminal: Terminal, client: httpx.Client) -> list[psutil.Process]:
    assert client.post("/api/models/demo/load").status_code == 200
    children = psutil.Process(terminal.pid).children()
    engines = [child for child in children if "llama" in child.name()]
    assert engines
    return engines


def test_a_closed_terminal_stops_the_server_and_its_engines(home: Path) -> None:
    with on_terminal(home) as (terminal, client):
        engines = loaded_engines(terminal, client)
        terminal.hang_up()
        assert terminal.exit_code() == 0
        assert not any(each.is_running() for each in engines)
        assert list((home / "run").iterdir()) == []


@pytest.mark.more
def test_a_repeated_sighup_does_not_cut_off_answers(home: Path) -> None:
    """The kernel sends one when the terminal is closed, and the shell another."""
    with on_terminal(home) as (terminal, client):
        loaded_engines(terminal, client)
        question = {"model": "demo", "messages": HI, "options": {"max_tokens": 300}}
        with client.stream("POST", "/api/chat", json=question) as answer:
            lines = answer.iter_lines()
            next(lines)
            for _ in range(3):
                os.kill(terminal.pid, signal.SIGHUP)
            last = [line for line in lines if line.startswith("data: ")][-1]
        assert json.loads(last.removeprefix("data: "))["finish_reason"] in ("stop", "length")
        assert terminal.exit_code() == 0


def test_ctrl_c_says_that_it_drains_and_what_a_second_one_does(home: Path) -> None:
    with on_terminal(home) as (terminal, client):
        engines = loaded_engines(terminal, client)
        engines[0].suspend()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(client.post, "/api/chat", json={"model": "demo", "messages": HI})
            wait_until(lambda: is_answering(client), 20, "an active answer")
            terminal.type("\x03")
            seconds = terminal.read_until(r"Running answers get (\S+) s to end")
            assert seconds == "5"
            terminal.read_until(r"(Ctrl\+C again) quits at once")
            terminal.type("\x03")
            assert terminal.exit_code() == 130


def test_under_nohup_a_closed_terminal_changes_nothing(home: Path) -> None:
    with (home / "stderr.log").open("w") as stderr:
        process = subprocess.Popen(
            ["nohup", *SERVE],
            env=environment(home), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=stderr, text=True, start_new_session=True,
        )  # fmt: skip
    assert process.stdout is not None
    try:
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found is not None
        server = Serving(process, found[0], home)
        with server.client() as client:
            process.send_signal(signal.SIGHUP)
            assert client.post("/api/models/demo/load").status_code == 200
            process.send_signal(signal.SIGHUP)
            assert client.get("/health").json()["status"] == "healthy"
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        said = [event["event"] for event in events(server)]
        assert "reloading" not in said
        assert said.count("engine starting") == 1
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()
        process.stdout.close()


def test_without_a_terminal_sighup_reloads(home: Path) -> None:
    with serving(home) as server, server.client() as api:
        assert api.post("/api/models/demo/load").status_code == 200
        [before] = server.engines()
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: not before.is_running(), 20, "the end of the first engine")
        assert api.get("/health").json()["status"] == "healthy"
        wait_until(lambda: stop_reasons(server) == ["reloaded"], 10, "the line in the log")


# What the log says


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.more)]
)
def test_the_log_says_why_the_server_stops_and_what_it_does(
    home: Path, number: signal.Signals
) -> None:
    with serving(home, drain_grace=0.5) as server, server.client() as api:
        assert api.post("/api/models/demo/load").status_code == 200
        [engine] = server.engines()
        engine.suspend()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(api.post, "/api/chat", json={"model": "demo", "messages": HI})
            wait_until(lambda: is_answering(api), 20, "an active answer")
            server.process.send_signal(number)
            assert server.process.wait(15) == 0
        log = events(server)
        [why] = [each for each in log if each["event"] == "server stopping"]
        assert why["reason"] == number.name
        stages = [
            "server stopping",
            "waiting for running answers",
            "running answers are cut off",
            "saving conversations and stopping engines",
            "engine stopped",
            "closing connections",
            "server stopped",
        ]
        assert [each["event"] for each in log if each["event"] in stages] == stages


def test_the_log_gives_the_reason_of_each_engines_end(home: Path) -> None:
    with serving(home, max_loaded_models=1) as server, server.client() as api:
        ask = {"model": "demo", "messages": HI, "stream": False, "options": {"max_tokens": 2}}
        assert api.post("/api/chat", json=ask | {"keep_alive": 0}).status_code == 200
        wait_until(lambda: stop_reasons(server) == ["idle"], 10, "the end of an idle engine")
        assert api.post("/api/models/demo/load").status_code == 200
        assert api.post("/api/embeddings", json={"model": "demo", "input": "x"}).status_code == 200
        assert api.post("/api/models/demo/unload").status_code == 200
        assert api.post("/api/models/demo/load").status_code == 200
        server.engines()[0].kill()
        wait_until(lambda: len(stop_reasons(server)) == 4, 10, "the end of four engines")
        why = ["idle", "evicted for demo (embed)", "unloaded", "crashed"]
        assert stop_reasons(server) == why
