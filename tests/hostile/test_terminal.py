"""Hostile text in every command that prints text from outside, and in the log."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from myllm import logs
from myllm.engine.engine import Engine
from myllm.escaping import in_json, in_lines, on_one_line
from tests.ggufs import write_header
from tests.hostile.attacks import others_are_served
from tests.hostile.hostile_server import HOSTILE, OBEYED, hostile_server
from tests.serving import Serving, environment, short_home
from tests.terminals import on_terminal, read_all

pytestmark = pytest.mark.full  # a process for each command, on a terminal of its own

# On Linux a file name may contain anything except a slash.
NAME = HOSTILE.replace("/", "")
COMMANDS = [
    ["sessions", "list"],
    ["sessions", "show", "sess1"],
    ["sessions", "show", "sess"],  # ambiguous: two ids begin so
    ["ps"],
    ["unload", "told"],  # an error
    ["show", "told"],
    ["logs", "told"],
    ["list"],
    ["run", "told", "Hi", "--verbose"],
    ["doctor"],
]
MORE = [
    ["sessions", "rm", "sess1"],
    ["sessions", "export", "sess1"],
    ["sessions", "import", "{home}/empty.json"],
    ["load", "told"],
    ["reload"],
    ["show", "ours"],
    ["rm", "--yes", "gone"],
    ["config", "show"],
    ["engine", "status"],
    ["engine", "check"],
]
JSON = [
    ["sessions", "list", "--json"],
    ["sessions", "show", "sess1", "--json"],
    ["ps", "--json"],
    ["show", "told", "--json"],
    ["list", "--json"],
    ["config", "show", "--json"],
]


@pytest.fixture(scope="module")
def env() -> Iterator[dict[str, str]]:
    """A hostile server, and models in a folder with a hostile name."""
    with short_home() as home:
        models = home / NAME
        write_header(models / "ours" / "x.gguf")
        config = {"description": HOSTILE, "family": HOSTILE}
        (models / "ours" / "config.json").write_text(json.dumps(config))
        (models / f"broken {NAME}").mkdir()
        (home / "empty.json").write_text("{}")
        engine = home / "llama-server"
        engine.write_text(f"#!/bin/sh\nprintf '%s\\n' 'version: 1 ({HOSTILE})' >&2\nexit 1\n")
        engine.chmod(0o755)
        with hostile_server(models) as port:
            settings = {"models_dir": models, "port": port, "llama_server": engine}
            yield environment(home, **settings) | {"HOME": str(home), "PATH": os.environ["PATH"]}


def check(text: str) -> None:
    assert not [each for each in OBEYED if each in text], repr(text)
    assert "Traceback" not in text
    assert "internal error" not in text, text


def filled(command: list[str], env: dict[str, str]) -> list[str]:
    return [part.replace("{home}", env["HOME"]) for part in command]


def more(commands: list[list[str]]) -> list[Any]:
    """Mark commands that only `scripts/test more` runs, since each needs a process of its own."""
    return [pytest.param(each, marks=pytest.mark.more) for each in commands]


@pytest.mark.parametrize("command", [*COMMANDS, *more(MORE)], ids=" ".join)
def test_on_a_terminal(env: dict[str, str], command: list[str]) -> None:
    with on_terminal(env, *filled(command, env), columns=500) as (process, screen):
        shown = read_all(screen)
        process.wait(60)
    check(shown)
    assert "owned" in shown or command[0] in ("engine", "rm"), shown


def piped(env: dict[str, str], command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "myllm", *filled(command, env)],
        env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.mark.more
@pytest.mark.parametrize("command", [c for c in [*COMMANDS, *MORE] if c[0] != "run"], ids=" ".join)
def test_in_a_pipe(env: dict[str, str], command: list[str]) -> None:
    done = piped(env, command)
    check(done.stdout + done.stderr)


@pytest.mark.parametrize("command", [JSON[0], *more(JSON[1:])], ids=" ".join)
def test_json_keeps_the_text_unchanged(env: dict[str, str], command: list[str]) -> None:
    done = piped(env, command)
    check(done.stdout)

    def texts(value: Any) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict | list):
            for each in value.values() if isinstance(value, dict) else value:
                yield from texts(each)

    assert any(HOSTILE in text or NAME in text for text in texts(json.loads(done.stdout)))


def test_an_exported_file_keeps_the_text_unchanged(env: dict[str, str]) -> None:
    """A later import needs the original text; a terminal shows it escaped."""
    command = ["sessions", "export", "sess1", "--format", "markdown"]
    done = subprocess.run(
        [sys.executable, "-m", "myllm", *command], env=env, capture_output=True, timeout=60
    )
    assert HOSTILE.encode() in done.stdout
    with on_terminal(env, *command) as (process, screen):
        check(read_all(screen))
        process.wait(60)


def test_an_answer_in_a_pipe_keeps_the_text_unchanged(env: dict[str, str]) -> None:
    command = [sys.executable, "-m", "myllm", "run", "told", "Hi"]
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=60
    )
    assert done.stdout == HOSTILE.encode() + b"\n"


def test_ps_watch(env: dict[str, str]) -> None:
    with on_terminal(env, "ps", "--watch", columns=500) as (process, screen):
        seen = b""
        while seen.count(b"owned") < 4:
            seen += os.read(screen, 65536)
        process.terminate()
    check(seen.decode())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_by_tab(env: dict[str, str], shell: str) -> None:
    line = "myllm sessions show sess"
    variables = {"_MYLLM_COMPLETE": f"complete_{shell}", "COMP_WORDS": line, "COMP_CWORD": "3"}
    variables |= {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = subprocess.run(
        [Path(sys.executable).with_name("myllm")], env={**env, **variables},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    check(done.stdout + done.stderr)
    assert "sess1" in done.stdout
    assert not [line for line in done.stdout.splitlines() if line.startswith("FORGED")]


def test_titles_of_a_real_server(engine: Engine, server: Serving) -> None:
    """The server stores a title unchanged, and the command shows it escaped."""
    with others_are_served(server), server.client() as api:
        body = {"model": "demo", "session_id": "s", "stream": False, "max_tokens": 4}
        api.post("/api/chat", json=body | {"messages": [{"role": "user", "content": "Hi"}]})
        api.patch("/api/sessions/s", json={"title": HOSTILE}).raise_for_status()
    own = environment(server.home, port=server.url.rsplit(":", 1)[1])
    with on_terminal(own, "sessions", "list", columns=200) as (process, screen):
        shown = read_all(screen)
        assert process.wait(60) == 0
    check(shown)
    assert "[/x]owned" in shown
    assert not re.search(r"^FORGED", shown, re.MULTILINE)


# The escaping functions


def test_harmless_unusual_text_is_unchanged() -> None:
    for text in (
        "é ü 日本 नमस्ते",
        "👩\u200d🔧",
        "می\u200cخواهم",
        "a\u00a0b",
        "\U000e0067",
        "א\u200f!",
    ):
        assert on_one_line(text) == in_lines(text) == in_json(text) == text
    assert in_lines("a\tb\r\nc\n") == "a\tb\nc\n"
    assert on_one_line("a\tb\r\nc\u2028d") == "a b c d"


def test_every_control_character_is_escaped() -> None:
    controls = [*range(0x20), 0x7F, *range(0x80, 0xA0)]
    controls += [*range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xDCFF]
    for control in map(chr, controls):
        assert on_one_line(f"a{control}b").isprintable()
        assert in_lines(f"a{control}b").replace("\n", "").replace("\t", "").isprintable()
        assert json.loads(in_json(json.dumps(control, ensure_ascii=False))) == control


# The log


@pytest.fixture(params=["text", "json"])
def form(request: pytest.FixtureRequest) -> Iterator[str]:
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        logs.configure("info", request.param)
        yield request.param
    finally:
        structlog.configure(**before)
        root.handlers[:] = handlers
        root.setLevel(level)


def test_the_log(form: str, capfd: pytest.CaptureFixture[str]) -> None:
    """An event is one line; only a traceback adds lines, which are indented."""
    log: Any = structlog.get_logger()
    log.warning("event", title=HOSTILE, several=[HOSTILE], table={HOSTILE: HOSTILE})
    logging.getLogger("library").warning("it says %s", HOSTILE)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        log.exception("failed", model=HOSTILE)
    assert logs.flush(10)
    text = capfd.readouterr().err
    assert not [each for each in OBEYED if each in text]
    assert not re.search(r"^FORGED", text, re.MULTILINE)
    begun = [line for line in text.splitlines() if not line.startswith("    ")]
    assert len(begun) == 3
    if form == "json":
        assert json.loads(begun[0])["title"] == HOSTILE
