"""`myllm run`: one question, a conversation on a terminal, Ctrl+C; with and without a server."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from myllm.engine.types import Engine
from tests.serving import environment, serving

FRANCE = "What is the capital of France?"
PARIS = "The capital of France is Paris."
LONG = ("--max-tokens", "2000", "--temperature", "2", "--top-k", "0", "--top-p", "1")


@pytest.fixture(autouse=True)
def _compiled(engine: Engine) -> None:
    """All of these need the engine."""


def myllm(
    home: Path, *arguments: str, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; no server runs on the port it would look at."""
    return subprocess.run(
        [sys.executable, "-m", "myllm", *arguments],
        env=environment(home, port=1),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_one_question_without_a_server(home: Path) -> None:
    done = myllm(home, "run", "demo", FRANCE)
    assert (done.stdout, done.returncode) == (PARIS + "\n", 0), done.stderr
    assert done.stderr == ""
    assert list((home / "run").iterdir()) == []


def test_the_question_may_come_from_a_pipe(home: Path) -> None:
    assert myllm(home, "run", "demo", stdin=FRANCE + "\n").stdout == PARIS + "\n"


def test_json(home: Path) -> None:
    answer = json.loads(myllm(home, "run", "demo", FRANCE, "--json").stdout)
    assert answer["message"]["content"] == PARIS


def test_a_running_server_is_used(home: Path) -> None:
    with serving(home) as server:
        port = server.url.rsplit(":", 1)[1]
        done = subprocess.run(
            [sys.executable, "-m", "myllm", "run", "demo", FRANCE],
            env=environment(home, port=port), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.stdout == PARIS + "\n"
        assert len(server.engines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nope", "hi"), 1, "error: Model 'nope' not found. Available models: demo"),
        (("demo", ""), 2, "the prompt is empty"),
        (("demo", "hi", "--temperature", "5"), 1, "temperature must be between 0.0 and 2.0"),
        (("demo", "hi", "--nonsense"), 2, "--nonsense"),
    ],
)
def test_what_goes_wrong(home: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    done = myllm(home, "run", *arguments)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_one_question_with_130_and_leaves_nothing_behind(
    home: Path, big_model: Path
) -> None:
    # The big model takes minutes for this answer, so it cannot end before the signal comes.
    process = subprocess.Popen(
        [sys.executable, "-m", "myllm", *models(big_model), "run", "big", "Go on", *LONG],
        env=environment(home, port=1), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        process.stdout.read(1)
        [engine] = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    assert not engine.is_running()


def models(big_model: Path) -> tuple[str, str]:
    """The global options that make the big model's folder the model folder."""
    return "--models-dir", str(big_model.parent.parent)


class Terminal:
    """A conversation with `myllm run` on a pseudo-terminal."""

    def __init__(self, master: int, process: subprocess.Popen[bytes]) -> None:
        self._master = master
        self.process = process
        self._seen = b""

    def until(self, words: str, timeout_s: float = 30) -> str:
        """Everything up to and with `words`."""
        deadline = time.monotonic() + timeout_s
        while words.encode() not in self._seen:
            assert time.monotonic() < deadline, f"no {words!r} in {self._seen!r}"
            self._seen += os.read(self._master, 4096)
        end = self._seen.index(words.encode()) + len(words.encode())
        text, self._seen = self._seen[:end], self._seen[end:]
        return text.decode()

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def at_a_persons_pace(self) -> None:
        """CPython's readline sleeps through a Ctrl+C in the instant after it shows its prompt."""
        time.sleep(1)


@contextmanager
def terminal(home: Path, *arguments: str) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "myllm", *arguments],
        env=environment(home, port=1) | {"TERM": "dumb"},
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        preexec_fn=_take_terminal,
    )  # fmt: skip
    os.close(slave)
    try:
        yield Terminal(master, process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(master)


def _take_terminal() -> None:
    """Make the pseudo-terminal the one that Ctrl+C comes from."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_a_conversation(home: Path) -> None:
    with terminal(home, "run", "demo") as talk:
        talk.until(">>> ")
        talk.type("My name is Tobias.\n")
        talk.until("Tobias")
        talk.until(">>> ")
        talk.type("What is my name?\n")
        talk.until("What is my name?")
        assert "Tobias" in talk.until(">>> ")
        talk.type("/help\n")
        assert "/clear" in talk.until("Ctrl+C stops an answer.")
        talk.until(">>> ")
        talk.type("/clear\n")
        talk.until("A new conversation begins")
        talk.until(">>> ")
        talk.type(FRANCE + "\n")
        talk.until(PARIS)
        talk.until(">>> ")
        talk.type("/exit\n")
        assert talk.process.wait(20) == 0


def test_ctrl_c_once_stops_the_answer_and_twice_leaves(home: Path, big_model: Path) -> None:
    with terminal(home, *models(big_model), "run", "big", *LONG) as talk:
        talk.until(">>> ")
        talk.type("Go on\n")
        talk.until("Go on\r\n")
        time.sleep(4)
        talk.type("\x03")
        talk.until("(stopped)")
        talk.until(">>> ")
        talk.at_a_persons_pace()
        talk.type("\x03")
        talk.until("Ctrl+C again")
        talk.until(">>> ")
        talk.at_a_persons_pace()
        talk.type("\x03")
        assert talk.process.wait(20) == 130


def test_ctrl_d_leaves(home: Path) -> None:
    with terminal(home, "run", "demo") as talk:
        talk.until(">>> ")
        talk.type("\x04")
        assert talk.process.wait(20) == 0
