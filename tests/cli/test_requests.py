"""`myllm requests`, once and followed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from myllm.engine.engine import Engine
from tests.api.credentials import port_of
from tests.api.events import post
from tests.cli.test_instances import myllm
from tests.keys import add_keys
from tests.serving import Serving, environment, serving
from tests.terminals import screen_lines

pytestmark = pytest.mark.full  # a process for each command
HI = [{"role": "user", "content": "Hello"}]


def ask(server: Serving, model: str = "demo") -> None:
    with server.client() as api:
        api.post("/api/chat", json={"model": model, "messages": HI, "stream": False})


def test_the_last_requests_are_shown(server: Serving) -> None:
    ask(server)
    ask(server, "no-such-model")
    heading, failed, answered = myllm(
        server.home, port_of(server), "requests", "-n", "2"
    ).stdout.splitlines()
    assert heading.split()[:3] == ["TIME", "KEY", "MODEL"]
    assert "404" in failed
    assert "no-such-model" in failed
    assert answered.split()[2:5] == ["demo", "native", "ok"]
    [one] = json.loads(myllm(server.home, port_of(server), "requests", "-n", "1", "--json").stdout)
    assert one["status"] == 404
    picked = myllm(server.home, port_of(server), "requests", "--status", "ok", "--model", "demo")
    assert "no-such-model" not in picked.stdout
    refused = myllm(server.home, port_of(server), "requests", "--status", "lost")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "status" in refused.stderr


def test_they_fit_a_narrow_terminal(server: Serving) -> None:
    ask(server)
    env = environment(server.home, port=port_of(server))
    lines = screen_lines(env, "requests", columns=60)
    assert lines[0].split()[:2] == ["TIME", "MODEL"]
    assert max(map(len, lines)) <= 60


@pytest.mark.parametrize("as_json", [False, True])
def test_requests_are_followed_as_they_end(server: Serving, as_json: bool) -> None:
    ask(server)
    following = subprocess.Popen(
        [sys.executable, "-m", "myllm", "requests", "-f", "-n", "1", *(["--json"] * as_json)],
        env=environment(server.home, port=port_of(server)), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert following.stdout is not None
    try:
        for _ in range(1 if as_json else 2):  # the heading, and the request before
            following.stdout.readline()
        with server.client() as api:
            post(api, "/api/generate", model="demo", prompt="Hi", stream=False)
        line = following.stdout.readline()
        if as_json:
            assert json.loads(line)["path"] == "/api/generate"
        else:
            assert line.split()[2:5] == ["demo", "native", "ok"]
        following.send_signal(signal.SIGINT)
        _, said = following.communicate(timeout=60)
        assert (following.returncode, said) == (0, "")
    finally:
        following.kill()
        following.wait()


@pytest.mark.parametrize("how", [(), ("--json",)])
def test_following_without_a_key_prints_only_the_error(
    engine: Engine, home: Path, how: tuple[str, ...]
) -> None:
    add_keys(home, ann="sk-ann")
    with serving(home) as server:
        done = myllm(home, port_of(server), "requests", "-f", *how)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")


def test_without_a_server_it_says_what_to_do(home: Path) -> None:
    done = myllm(home, 1, "requests")
    assert done.returncode == 1
    assert "start one with 'myllm serve'" in done.stderr
