"""Commands about the engines of a running server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from myllm.engine.engine import Engine
from tests.serving import Serving, environment, serving
from tests.terminals import on_terminal, read_all
from tests.toys import add_toy

pytestmark = pytest.mark.full  # a process for each command


def myllm(home: Path, port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "myllm", *arguments],
        env=environment(home, port=port), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_load_ps_unload(server: Serving) -> None:
    port = int(server.url.rsplit(":", 1)[1])
    assert myllm(server.home, port, "load", "demo").stdout == "Model 'demo' loaded\n"
    heading, row = myllm(server.home, port, "ps").stdout.splitlines()
    assert heading.split()[:5] == ["MODEL", "ROLE", "STATE", "BUSY", "QUEUED"]
    assert row.split()[:5] == ["demo", "generate", "ready", "0/4", "0"]
    [instance] = json.loads(myllm(server.home, port, "ps", "--json").stdout)
    assert instance["model"] == "demo"
    assert myllm(server.home, port, "unload", "demo").stdout == "Model 'demo' unloaded\n"
    again = myllm(server.home, port, "unload", "demo")
    assert (again.returncode, again.stderr) == (1, "error: Model 'demo' is not loaded\n")


def blocks(watching: subprocess.Popen[str], count: int) -> list[list[str]]:
    """The next blocks that `ps --watch` prints into a pipe."""
    assert watching.stdout is not None
    found: list[list[str]] = []
    for _ in range(count):
        found.append([])
        while line := watching.stdout.readline().rstrip("\n"):
            found[-1].append(line)
    return found


def test_ps_can_be_watched(server: Serving) -> None:
    port = int(server.url.rsplit(":", 1)[1])
    watching = subprocess.Popen(
        [sys.executable, "-m", "myllm", "ps", "--watch"],
        env=environment(server.home, port=port), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert [len(block) for block in blocks(watching, 1)] == [1]
        with server.client() as client:
            assert client.post("/api/models/demo/load").status_code == 200
            last = blocks(watching, 2)[-1]
            assert last[1].split()[:3] == ["demo", "generate", "ready"]
            assert client.post("/api/models/demo/unload").status_code == 200
        watching.send_signal(signal.SIGINT)
        _, said = watching.communicate(timeout=60)
        assert (watching.returncode, said) == (0, "")
    finally:
        watching.kill()
        watching.wait()


def test_ps_is_watched_in_place_on_a_terminal(server: Serving) -> None:
    env = environment(server.home, port=server.url.rsplit(":", 1)[1])
    with on_terminal(env, "ps", "--watch") as (process, screen):
        seen = b""
        while seen.count(b"MODEL") < 3:
            seen += os.read(screen, 4096)
        process.send_signal(signal.SIGINT)
        seen += read_all(screen).encode()
        assert process.wait(60) == 0
    assert b"\x1b[2K" in seen, "each table is drawn over the one before"
    assert b"Traceback" not in seen


def test_watching_ends_with_the_server(engine: Engine, home: Path) -> None:
    with serving(home) as server:
        port = int(server.url.rsplit(":", 1)[1])
        watching = subprocess.Popen(
            [sys.executable, "-m", "myllm", "ps", "--watch"],
            env=environment(home, port=port), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        blocks(watching, 1)
    _, said = watching.communicate(timeout=60)
    assert watching.returncode == 1
    # The server may stop during a request, or between two of them.
    assert said.startswith(("error: no MyLLM server answers", "error: the connection to the"))
    assert "Errno" not in said


def test_load_and_stop_by_any_name(server: Serving) -> None:
    port = int(server.url.rsplit(":", 1)[1])
    add_toy(server.models_dir, aliases=["org/toy:7b"])
    for loaded, stopped in (("org/toy:7b", "toy:latest"), ("toy", "org/toy:7b")):
        done = myllm(server.home, port, "load", loaded)
        assert (done.returncode, done.stdout) == (0, f"Model '{loaded}' loaded\n")
        assert myllm(server.home, port, "stop", stopped).returncode == 0
    assert json.loads(myllm(server.home, port, "ps", "--json").stdout) == []


def test_without_a_server_they_say_what_to_do(home: Path) -> None:
    for command in (("ps",), ("load", "demo"), ("unload", "demo")):
        done = myllm(home, 1, *command)
        assert done.returncode == 1
        assert "start one with 'myllm serve'" in done.stderr


def test_version_and_completion(home: Path) -> None:
    assert myllm(home, 1, "--version").stdout.startswith("myllm 0.")
    # For the shell that it is started from, which the tests may have been started without.
    shown = subprocess.run(
        ["bash", "-c", '"$@"; exit $?', "bash", sys.executable, "-m", "myllm", "--show-completion"],
        env=environment(home), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "myllm" in shown.stdout
