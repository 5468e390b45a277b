"""`myllm logs`, with a running server and without one."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.api.events import post
from tests.serving import Serving, environment, serving, wait_until
from tests.toys import add_toy

pytestmark = pytest.mark.full  # a process for each command
LOADED = "llama_server: model loaded"
NO_PORT = 1  # where no server listens


def myllm(home: Path, port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "myllm", *arguments],
        env=environment(home, port=port), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def following(home: Path, port: int, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "myllm", "logs", *arguments],
        env=environment(home, port=port), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def port_of(server: Serving) -> int:
    return int(server.url.rsplit(":", 1)[1])


def test_the_logs_of_a_running_server(server: Serving, api: httpx.Client) -> None:
    post(api, "/api/models/demo/load")
    wait_until(lambda: LOADED in api.get("/api/logs/demo").text, 10, "the engine's output")
    shown = myllm(server.home, port_of(server), "logs", "demo")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout == api.get("/api/logs/demo").text
    two = myllm(server.home, port_of(server), "logs", "demo", "-n", "2")
    assert two.stdout == "".join(shown.stdout.splitlines(keepends=True)[-2:])


def test_a_follower_is_stopped_by_ctrl_c(server: Serving, api: httpx.Client) -> None:
    post(api, "/api/models/demo/load")
    wait_until(lambda: LOADED in api.get("/api/logs/demo").text, 10, "the engine's output")
    watching = following(server.home, port_of(server), "demo", "-f", "-n", "1")
    assert watching.stdout is not None
    assert watching.stdout.readline() != ""  # now it follows
    post(api, "/api/models/demo/unload")
    post(api, "/api/models/demo/load")
    assert any(LOADED in line for line in watching.stdout)
    watching.send_signal(signal.SIGINT)
    assert (watching.wait(30), watching.communicate()[1]) == (0, "")


def test_after_the_server_has_stopped(engine: Engine, home: Path) -> None:
    add_toy(home / "models", "toy", aliases=["plaything"])
    unused = myllm(home, NO_PORT, "logs", "toy")
    assert (unused.returncode, unused.stdout) == (0, "")
    assert unused.stderr == "No engine of 'toy' has printed anything yet\n"
    with serving(home) as server, server.client() as api:
        post(api, "/api/models/toy/load")
    shown = myllm(home, NO_PORT, "logs", "plaything")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert LOADED in shown.stdout
    watching = following(home, NO_PORT, "toy", "-f", "-n", "1")
    assert watching.stdout is not None
    assert watching.stdout.readline() == shown.stdout.splitlines(keepends=True)[-1]
    with (home / "state" / "logs" / "toy.generate.log").open("a") as log:
        log.write("a new line\n")
    assert watching.stdout.readline() == "a new line\n"
    watching.send_signal(signal.SIGINT)
    assert (watching.wait(30), watching.communicate()[1]) == (0, "")


@pytest.mark.parametrize("running", [True, False])
def test_a_model_that_does_not_exist(server: Serving, running: bool) -> None:
    port = port_of(server) if running else NO_PORT
    refused = myllm(server.home, port, "logs", "../nowhere")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("error: Model '../nowhere' not found")


def test_a_number_of_lines_out_of_range(tmp_path: Path) -> None:
    assert myllm(tmp_path, NO_PORT, "logs", "demo", "-n", "10001").returncode == 2
