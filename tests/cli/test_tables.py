"""The output of the commands fits a terminal of 60 columns, and is complete in a pipe."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from myllm.cli.tables import Column, GrowingTable, fitting_table, plain_table
from myllm.engine.engine import Engine
from tests.ggufs import write_header
from tests.serving import Serving, environment, serving
from tests.terminals import screen_lines

LONG = "a-model-with-a-name-that-says-very-much-about-it.q4_k_m"
COLUMNS = (
    Column("NAME"),
    Column("FAMILY", rank=2),
    Column("SIZE", rank=1, right=True),
    Column("TITLE", prose=True),
)


def drawn(rows: list[tuple[str, ...]], width: int) -> list[str]:
    console = Console(width=width, force_terminal=False)
    with console.capture() as captured:
        console.print(fitting_table(COLUMNS, rows, width))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_the_least_important_columns_are_left_out_first() -> None:
    rows = [("x" * 20, "llama", "1.2 GB", "short")]
    assert drawn(rows, 80)[0].split() == ["NAME", "FAMILY", "SIZE", "TITLE"]
    assert drawn(rows, 40)[0].split() == ["NAME", "SIZE", "TITLE"]
    assert drawn(rows, 30)[0].split() == ["NAME", "TITLE"]


@pytest.mark.parametrize("width", [20, 30, 60])
def test_nothing_is_cut_and_nothing_is_too_wide(width: int) -> None:
    rows = [("n" * 70, "llama", "1.2 GB", "many words " * 9), ("日本" * 20, "f", "1 MB", "日本語")]
    lines = drawn(rows, width)
    text = "".join(lines)
    assert "…" not in text
    assert max(map(len, lines)) <= width
    assert text.count("n") >= 70
    assert text.count("日") == 21


def test_a_cell_is_not_markup_and_moves_no_cursor() -> None:
    rows = [("[/red]", "[bold]", "\x1b[2J", "two\nlines")]
    shown = "\n".join(drawn(rows, 60))
    assert "[/red]" in shown
    assert "\x1b" not in shown
    assert "two lines" in shown
    assert len(plain_table(COLUMNS, rows).splitlines()) == 2
    assert plain_table(COLUMNS[:1], [("a\udcff",)]).endswith("a\\udcff")


def test_in_a_pipe_a_wide_character_takes_two_places() -> None:
    rows = [
        ("日本語", "llama", "1 MB", "x"),
        ("e\u0301", "f", "2 MB", "y"),
        ("abcdefg", "", "", ""),
    ]
    lines = plain_table(COLUMNS, rows).splitlines()
    assert [cell_len(line[: line.index(word)]) for line, word in zip(
        lines, ("FAMILY", "llama", "f ", "abc"), strict=True
    )] == [9, 9, 9, 0]  # fmt: skip


FOLLOWED = (Column("KEY"), Column("SIZE", rank=1, right=True), Column("NOTES", rank=2))


def test_a_table_that_grows_stays_aligned() -> None:
    table = GrowingTable(FOLLOWED, ("usual", "12345", ""))
    assert table.lines([]) == ["KEY     SIZE  NOTES"]
    assert table.lines([("ann", "1", "a"), ("日本", "12345", "a very long note")]) == [
        "ann        1  a",
        "日本   12345  a very long note",
    ]
    assert table.lines([("ann", "2", ""), ("analytics-team", "123456", "b")]) == [
        "KEY               SIZE  NOTES",
        "ann                  2",
        "analytics-team  123456  b",
    ]
    assert table.lines([("\x1b[2J", "3", "c")]) == ["\\x1b[2J              3  c"]
    assert table.lines([]) == []


def test_one_very_long_cell_moves_those_behind_it() -> None:
    table = GrowingTable(FOLLOWED, ("usual", "12345", ""))
    heading, line = table.lines([("k" * 300, "1", "note")])
    assert heading.index("NOTES") == 40 + 2 + 5 + 2
    assert line.split() == ["k" * 300, "1", "note"]


@pytest.fixture
def env(home: Path) -> dict[str, str]:
    """An environment with a model that has a long name and a long description."""
    write_header(home / "models" / LONG / "tiny.gguf")
    config = {"description": "It is good for many things. " * 6}
    (home / "models" / LONG / "config.json").write_text(json.dumps(config))
    return environment(home, port=1)


def piped(env: dict[str, str], *arguments: str) -> list[str]:
    ended = subprocess.run(
        [sys.executable, "-m", "myllm", *arguments],
        env={**env, "COLUMNS": "60"}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return ended.stdout.splitlines()


def check_fits(lines: list[str], columns: int = 60) -> None:
    assert "…" not in "".join(lines)
    assert max(map(len, lines)) <= columns, lines


@pytest.mark.full
def test_models(env: dict[str, str]) -> None:
    lines = screen_lines(env, "list")
    check_fits(lines)
    assert any(line.startswith(LONG) for line in lines)
    [row] = [line for line in piped(env, "list") if line.startswith(LONG)]
    assert row.split() == [LONG, "llama", "0", "MB", "Q4_K_M", "2048", "gguf"]


@pytest.mark.full
def test_the_catalog(env: dict[str, str]) -> None:
    lines = screen_lines(env, "list", "--available")
    check_fits(lines)
    assert lines[0].split()[0] == "NAME"
    assert lines[0].split()[-1] == "DESCRIPTION"
    assert len(piped(env, "list", "--available")) == 6


@pytest.mark.full
def test_one_model(env: dict[str, str]) -> None:
    lines = screen_lines(env, "show", LONG)
    check_fits(lines)
    assert "".join(lines).count("things") == 6
    [described] = [line for line in piped(env, "show", LONG) if line.startswith("description")]
    assert described.count("things") == 6


@pytest.mark.parametrize("command", [("doctor",), ("engine", "status")])
def test_the_machine(engine: Engine, env: dict[str, str], command: tuple[str, ...]) -> None:
    check_fits(screen_lines(env, *command))
    assert len(piped(env, *command)) > 2


def test_engines_that_run(engine: Engine, env: dict[str, str], home: Path) -> None:
    (home / "models" / LONG / "tiny.gguf").unlink()
    demo = json.loads("".join(piped(env, "show", "demo", "--json")))["path"]
    (home / "models" / LONG / "tiny.gguf").symlink_to(Path(demo) / "demo.gguf")
    with serving(home) as server:
        here = environment(home, port=server.url.rsplit(":", 1)[1])
        assert piped(here, "load", LONG) == [f"Model '{LONG}' loaded"]
        lines = screen_lines(here, "ps")
        check_fits(lines)
        assert lines[0].split() == ["MODEL", "STATE", "BUSY", "QUEUED"]
        assert lines[1].split()[1:] == ["ready", "0/4", "0"]
        assert lines[1].split()[0] + lines[2] == LONG
        assert screen_lines(here, "ps", columns=200)[0].split()[-1] == "PID"


def test_sessions(engine: Engine, env: dict[str, str], server: Serving) -> None:
    title = "[/b] " + "Tell me everything about it. " * 3
    with server.client() as client:
        made = client.post(
            "/api/sessions/import",
            json={
                "version": 1,
                "id": str(uuid.uuid4()),
                "model": LONG,
                "title": title,
                "messages": [{"role": "user", "content": "x"}],
            },
        )
    assert made.status_code == 201, made.text
    here = environment(server.home, port=server.url.rsplit(":", 1)[1])
    lines = screen_lines(here, "sessions", "list")
    check_fits(lines)
    assert any(line.startswith(made.json()["id"]) for line in lines)
    assert "".join(lines).count("everything") == 3
