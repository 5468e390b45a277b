"""`myllm run` with one question: where it comes from, what is kept, what is printed."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from myllm.engine.engine import Engine
from tests.api.credentials import port_of
from tests.cli.terminal import terminal
from tests.serving import Serving, environment, serving
from tests.tooled import OPEN_THOUGHTS, add_model

FRANCE = "What is the capital of France?"
PARIS = "The capital of France is Paris."
LONG = ("--max-tokens", "2000", "--temperature", "2", "--top-k", "0", "--top-p", "1")


@pytest.fixture(autouse=True)
def _compiled(engine: Engine) -> None:
    """All of these need the engine."""


def myllm(
    home: Path, *arguments: str, stdin: str | None = None, port: int = 1
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; no server runs on its default port."""
    return subprocess.run(
        [sys.executable, "-m", "myllm", *arguments],
        env=environment(home, port=port),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=60,
    )


def stored(api: httpx.Client) -> list[str]:
    """The ids of all stored conversations."""
    return [each["id"] for each in api.get("/api/sessions").json()["sessions"]]


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
        done = myllm(home, "run", "demo", FRANCE, port=port_of(server))
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
    """The global options that make the big model's folder the models folder."""
    return "--models-dir", str(big_model.parent.parent)


def test_the_prompt_is_followed_by_what_is_piped(server: Serving, api: httpx.Client) -> None:
    how = ("Summarise:", "--session", "piped", "--max-tokens", "1")
    done = myllm(server.home, "run", "demo", *how, stdin="one\ntwo\n", port=port_of(server))
    assert done.returncode == 0, done.stderr
    asked = api.get("/api/sessions/piped").json()["messages"][0]["content"]
    assert asked == "Summarise:\n\none\ntwo"
    api.delete("/api/sessions/piped").raise_for_status()


def test_one_question_is_stored_only_if_an_option_says_so(
    server: Serving, api: httpx.Client
) -> None:
    port = port_of(server)
    assert myllm(server.home, "run", "demo", FRANCE, port=port).stdout == PARIS + "\n"
    told = json.loads(myllm(server.home, "run", "demo", FRANCE, "--json", port=port).stdout)
    assert (told["message"]["content"], told["session_id"]) == (PARIS, None)
    assert stored(api) == []
    for how in (("--store",), ("--continue",), ("--session", "mine")):
        assert myllm(server.home, "run", "demo", FRANCE, *how, port=port).returncode == 0
    first, other = stored(api)
    assert first == "mine"
    assert len(api.get(f"/api/sessions/{other}").json()["messages"]) == 4


def test_an_open_pipe_that_stays_silent_causes_a_message(server: Serving) -> None:
    """The command still waits for its end: a slow writer's text must not get lost."""
    process = subprocess.Popen(
        [sys.executable, "-m", "myllm", "run", "demo", "What is the capital"],
        env=environment(server.home, port=port_of(server)), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("Waiting for the end of stdin")
        out, _ = process.communicate("of France?", timeout=60)
        assert process.returncode == 0
        assert out


def test_a_closed_stdin_counts_as_empty(server: Serving) -> None:
    line = f'"{sys.executable}" -m myllm run demo "{FRANCE}" <&-'
    done = subprocess.run(
        ["bash", "-c", line], env=environment(server.home, port=port_of(server)),
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (PARIS + "\n", "")


def test_counts_and_speed(server: Serving) -> None:
    done = myllm(server.home, "run", "demo", FRANCE, "--verbose", port=port_of(server))
    assert done.stdout == PARIS + "\n"
    found = re.fullmatch(
        r"prompt: (\d+) tokens \(\d+ cached\), first token after [\d.]+ s; "
        r"answer: (\d+) tokens in [\d.]+ s, [\d.]+ tokens/s\n",
        done.stderr,
    )
    assert found, done.stderr
    assert found.groups() == ("11", "10")


def test_thoughts_are_dimmed_on_a_terminal_and_left_out_of_a_pipe(home: Path) -> None:
    add_model(home / "models", "thinker", OPEN_THOUGHTS)
    line = ("run", "thinker", FRANCE, "--max-tokens", "20")
    with serving(home) as server:
        port = port_of(server)
        whole = json.loads(myllm(home, *line, "--json", port=port).stdout)["message"]
        assert whole["thinking"]
        piped = myllm(home, *line, port=port)
        assert (piped.stdout, piped.stderr) == (whole["content"] + "\n", "")
        first = whole["thinking"].split()[0]
        for kind, start, stop in (("xterm", "\x1b[2m", "\x1b[0m"), ("dumb", "", "")):
            with terminal(home, *line, kind=kind, port=port) as shown:
                shown.until(f"{start}Thinking ...{stop}\r\n{start}{first}")
                assert shown.process.wait(60) == 0
