"""`myllm top`: one frame in a pipe, a live one on a terminal, which is restored in the end."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from myllm.engine.engine import Engine
from myllm.gateway.observers.recent_requests import MOST_REFUSED
from tests.api.credentials import ANN, BOB, bearer, port_of
from tests.api.events import post
from tests.cli.test_instances import myllm
from tests.keys import add_keys
from tests.serving import Serving, environment, serving, stop

pytestmark = pytest.mark.full  # a process for each command
HI = [{"role": "user", "content": "Hello"}]
ENTER, LEAVE, SHOW_CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


class Screen:
    """A terminal of 80 columns and 24 lines, and the command on it."""

    def __init__(self, ours: int, theirs: int, process: subprocess.Popen[bytes]) -> None:
        self._ours, self._theirs = ours, theirs
        self.process = process
        self.shown = b""

    def until(self, words: bytes) -> None:
        ends = time.monotonic() + 60
        while words not in self.shown:
            ready, _, _ = select.select([self._ours], [], [], 0.5)
            assert time.monotonic() < ends, f"no {words!r} in {self.shown[-3000:]!r}"
            if ready:
                self.shown += os.read(self._ours, 65536)

    def press(self, key: bytes) -> None:
        os.write(self._ours, key)

    def attributes(self) -> list[object]:
        """How the terminal treats its keyboard."""
        return termios.tcgetattr(self._theirs)


@contextmanager
def top(env: dict[str, str]) -> Iterator[Screen]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "myllm", "top"],
        env=env | {"COLUMNS": "80", "LINES": "24", "TERM": "xterm"},
        stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        yield Screen(ours, theirs, process)
    finally:
        process.kill()
        process.communicate()
        os.close(ours)
        os.close(theirs)


def on(server: Serving) -> dict[str, str]:
    return environment(server.home, port=port_of(server))


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("q", 0), ("Q", 0), ("\x03", 0),  # Ctrl+C, from the keyboard
        (signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129),
    ],
)  # fmt: skip
def test_the_terminal_is_restored(server: Serving, ending: str | signal.Signals, code: int) -> None:
    with top(on(server)) as screen:
        before = screen.attributes()
        screen.until(b"MyLLM")
        assert screen.attributes() != before, "keys are read as they are pressed"
        if isinstance(ending, signal.Signals):
            screen.process.send_signal(ending)
        elif ending == "\x03":
            os.killpg(screen.process.pid, signal.SIGINT)
        else:
            screen.press(ending.encode())
        screen.until(LEAVE)
        assert screen.process.wait(60) == code
        assert screen.attributes() == before
        assert screen.shown.index(ENTER) < screen.shown.index(LEAVE)
        assert SHOW_CURSOR in screen.shown


def test_other_keys_do_nothing(server: Serving) -> None:
    with top(on(server)) as screen:
        screen.until(b"MyLLM")
        screen.press(b"x\x1a\x1b[A")  # Ctrl+Z and an arrow among them
        time.sleep(0.5)
        assert screen.process.poll() is None
        screen.press(b"q")
        assert screen.process.wait(60) == 0


def test_the_terminal_is_restored_when_the_server_ends(engine: Engine, home: Path) -> None:
    with serving(home) as server, top(on(server)) as screen:
        before = screen.attributes()
        screen.until(b"MyLLM")
        stop(server.process)
        screen.until(LEAVE)
        _, said = screen.process.communicate(timeout=60)
        assert screen.process.returncode == 1
        assert said.startswith(b"error: ")
        assert b"Traceback" not in said
        assert b"Errno" not in said
        assert screen.attributes() == before


def test_a_live_frame_shows_models_and_errors(server: Serving) -> None:
    with server.client() as api:
        api.post("/api/chat", json={"model": "no-such-model", "messages": HI})
        post(api, "/api/models/demo/load")
    with top(on(server)) as screen:
        for words in (b"DEVICE", b"host", b"MODEL", b"demo", b"ready", b"FAILED", b"404"):
            screen.until(words)
        screen.press(b"q")
        assert screen.process.wait(60) == 0


def test_in_a_pipe_one_frame_is_printed(server: Serving) -> None:
    with server.client() as api:
        post(api, "/api/models/demo/load")
        api.post("/api/chat", json={"model": "no-such-model", "messages": HI})
    done = myllm(server.home, port_of(server), "top")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0].startswith("MyLLM ")
    assert any(line.split()[:3] == ["demo", "generate", "ready"] for line in lines)
    assert "Model 'no-such-model' not found" in done.stdout


def test_refused_requests_do_not_hide_those_that_asked_a_model(server: Serving) -> None:
    with server.client() as api:
        wrong = {"model": "demo", "prompt": "x", "format": {"type": "nonsense"}}
        assert api.post("/api/generate", json=wrong).status_code == 400
        for _ in range(MOST_REFUSED + 10):
            assert api.get("/api/requests/nowhere").status_code == 404
    shown = myllm(server.home, port_of(server), "top").stdout
    assert shown.count("nowhere'") == 3
    assert "The engine refused the request" in shown


def test_a_user_is_refused_the_history_only_once(engine: Engine, home: Path) -> None:
    add_keys(home, "admin", ann=ANN)
    add_keys(home, bob=BOB)
    with serving(home) as server, top(on(server) | {"MYLLM_API_KEY": BOB}) as screen:
        for second in (b"up 0:00:0", b"up 0:00:1"):  # several looks, one each second
            screen.until(second)
        with server.client() as api:
            query = {"status": "403"}
            answer = api.get("/api/requests", params=query, headers=bearer(ANN))
        assert [one["path"] for one in answer.json()["requests"]] == ["/api/history"]


def test_a_user_sees_its_own(engine: Engine, home: Path) -> None:
    add_keys(home, "admin", ann=ANN)
    add_keys(home, bob=BOB)
    with serving(home) as server:
        shown = subprocess.run(
            [sys.executable, "-m", "myllm", "top"],
            env=on(server) | {"MYLLM_API_KEY": BOB}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith("MyLLM ")
    assert "Last minute" not in shown.stdout


def test_without_a_server_it_says_what_to_do(home: Path) -> None:
    done = myllm(home, 1, "top")
    assert done.returncode == 1
    assert "start one with 'myllm serve'" in done.stderr
