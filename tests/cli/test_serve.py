"""`myllm serve`: how it starts, drains and stops, and what it leaves behind."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from myllm.engine.engine import Engine
from tests.api.events import detail, parse, stream
from tests.engine.llama import write_tree
from tests.serving import environment, serving, stop, wait_until

HI = [{"role": "user", "content": "Hello"}]
ENDLESS = {"max_tokens": 2000, "temperature": 2, "min_p": 0, "top_k": 0}


@pytest.fixture(autouse=True)
def _compiled(engine: Engine) -> None:
    """All of these start a server, which needs the engine."""


def test_it_prints_a_line_that_works(home: Path) -> None:
    with serving(home) as server:
        assert server.process.stdout is not None
        lines = [server.process.stdout.readline() for _ in range(2)]
        answer = subprocess.run(shlex.split(lines[1]), capture_output=True, text=True, timeout=60)
        assert '"role":"assistant"' in answer.stdout


def test_a_taken_port_is_one_clear_line(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "myllm", "serve", "--port", str(port)],
            env=environment(home), capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: port {port} on 127.0.0.1 is taken; ")
    assert done.stderr.count("\n") == 1
    assert str(port) in done.stderr.split("lsof", 1)[1]


def test_no_connection_is_accepted_while_the_engine_is_compiled(home: Path) -> None:
    slow = home / "slow-c++"
    slow.write_text('#!/bin/sh\ncase "$*" in *"-c "*) sleep 60 ;; esac\nexec c++ "$@"\n')
    slow.chmod(0o755)
    given = {"cache_dir": home / "cache", "llama_source": write_tree(home / "tree")}
    process = subprocess.Popen(
        [sys.executable, "-m", "myllm", "serve", "--port", "0"],
        env=environment(home, llama_server="", **given) | {"CXX": str(slow)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        server = psutil.Process(process.pid)
        wait_until(lambda: len(server.children(recursive=True)) > 1, 30, "a compiler")
        assert server.net_connections("tcp") == []
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    finally:
        stop(process)


def test_sigterm_lets_running_answers_end_and_exits_with_0(home: Path) -> None:
    with serving(home) as server, server.client() as api:
        seen: dict[str, Any] = {}

        def answer() -> None:
            with server.client() as client:
                options = ENDLESS | {"max_tokens": 300}
                _, seen["last"] = stream(
                    client, "/api/generate", model="demo", prompt="x", options=options
                )

        assert api.post("/api/models/demo/load").status_code == 200
        [engine] = server.engines()
        engine.suspend()  # otherwise the answer could be complete before the test looks
        thread = threading.Thread(target=answer)
        thread.start()
        wait_until(lambda: api.get("/health").json()["active"] == 1, 20, "an active answer")
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: api.get("/health").json()["status"] == "draining", 20, "draining")
        engine.resume()
        thread.join(20)
        assert seen["last"]["finish_reason"] in ("length", "stop")
        assert server.process.wait(15) == 0


@pytest.mark.more
def test_what_does_not_end_within_the_grace_ends_with_an_error_event(home: Path) -> None:
    with serving(home, drain_grace=0.5) as server, server.client() as api:
        assert api.post("/api/models/demo/load").status_code == 200
        # A suspended engine simulates one that takes longer than the grace.
        [engine] = server.engines()
        engine.suspend()
        with api.stream(
            "POST", "/api/generate", json={"model": "demo", "prompt": "x"}
        ) as answer:  # fmt: skip
            lines = answer.iter_lines()
            assert next(lines).startswith(": ")
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: api.get("/health").json()["status"] == "draining", 5, "draining")
            refused = api.post("/api/chat", json={"model": "demo", "messages": HI})
            assert "shutting down" in detail(refused, 503)
            assert int(refused.headers["retry-after"]) > 0
            last = parse([line for line in lines if line.startswith("data: ")][-1])
        assert last["done"] is True
        assert (last["code"], last["retryable"]) == (503, True)
        assert "shutting down" in last["error"]
        assert server.process.wait(15) == 0


def test_ctrl_c_stops_within_the_graces_whatever_the_engine_does(home: Path) -> None:
    question = {"model": "demo", "messages": HI, "stream": False}
    with (
        serving(home, drain_grace=0.5, stop_grace=0.5) as server,
        server.client() as api,
        server.client() as other,
    ):
        said = api.post("/api/chat", json=question | {"session_id": "unsaved"})
        assert said.status_code == 200
        [engine] = server.engines()
        engine.suspend()  # it neither answers nor saves nor stops
        with ThreadPoolExecutor(1) as pool:
            cut = pool.submit(other.post, "/api/chat", json=question)
            wait_until(lambda: api.get("/health").json()["active"] == 1, 20, "an active answer")
            began = time.monotonic()
            server.process.send_signal(signal.SIGINT)
            assert server.process.wait(30) == 0
            # Both graces, a second for closing connections, and a margin for a busy machine.
            assert time.monotonic() - began < 20
            assert "shutting down" in detail(cut.result(), 503)
        assert not engine.is_running()


def test_a_second_ctrl_c_quits_at_once(home: Path) -> None:
    question = {"model": "demo", "messages": HI, "stream": False}
    with serving(home, drain_grace=60) as server, server.client() as api, server.client() as other:
        assert api.post("/api/models/demo/load").status_code == 200
        [engine] = server.engines()
        engine.suspend()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(other.post, "/api/chat", json=question)
            wait_until(lambda: api.get("/health").json()["active"] == 1, 20, "an active answer")
            server.process.send_signal(signal.SIGINT)
            wait_until(lambda: api.get("/health").json()["status"] == "draining", 20, "draining")
            began = time.monotonic()
            server.process.send_signal(signal.SIGINT)
            assert server.process.wait(10) == 130
            assert time.monotonic() - began < 5
        wait_until(lambda: not engine.is_running(), 5, "the engine's end")
    assert list((home / "run").iterdir()) == []


def test_a_killed_server_leaves_no_engine_behind(home: Path) -> None:
    with serving(home) as server, server.client() as api:
        api.post("/api/models/demo/load")
        api.post("/api/embeddings", json={"model": "demo", "input": "x"})
        engines = server.engines()
        assert len(engines) == 2
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait(5)
        _, alive = psutil.wait_procs(engines, timeout=2)
        assert alive == []


def test_an_engine_killed_in_mid_answer_is_replaced_and_the_restart_counted(home: Path) -> None:
    with serving(home) as server, server.client() as api:
        with api.stream(
            "POST", "/api/generate",
            json={"model": "demo", "prompt": "x", "options": ENDLESS},
        ) as answer:  # fmt: skip
            lines = answer.iter_lines()
            next(lines)
            server.engines()[0].kill()
            last = parse([line for line in lines if line.startswith("data: ")][-1])
        assert last["finish_reason"] in ("stop", "length")
        assert last["full_text"]
        again = api.post("/api/chat", json={"model": "demo", "messages": HI, "stream": False})
        assert again.status_code == 200
        [instance] = api.get("/api/instances").json()["instances"]
        assert instance["restarts"] == 1


def test_logs_are_json_with_the_requests_id(home: Path) -> None:
    with serving(home) as server, server.client() as api:
        api.post(
            "/api/chat", json={"model": "nope", "messages": HI}, headers={"X-Request-ID": "r-1"}
        )
        wait_until(lambda: '"r-1"' in server.log, 5, "the log line")
        [line] = [line for line in server.log.splitlines() if '"r-1"' in line]
        assert re.search(r'"path":"/api/chat","status":404', line)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("MYLLM_PORT", "http", "setting MYLLM_PORT"),
        ("MYLLM_LLAMA_SERVER", "/nowhere/llama-server", "/nowhere/llama-server"),
    ],
)
def test_a_wrong_setting_is_named(home: Path, name: str, value: str, words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "myllm", "serve"],
        env=environment(home) | {name: value}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
