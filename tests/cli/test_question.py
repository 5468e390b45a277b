"""The question of `myllm run`: its PROMPT and what is piped into it."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from myllm.cli.run.question import one_question
from myllm.errors import InvalidRequest


def ask(
    prompt: str | None, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str | None:
    """The question when `content` is on stdin."""
    file = tmp_path / "stdin"
    file.write_bytes(content)
    with file.open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        return one_question(prompt)


@pytest.mark.parametrize(
    ("prompt", "content", "asked"),
    [
        ("Summarise:", b"\n  one\ntwo\n\n", "Summarise:\n\n  one\ntwo"),
        ("Summarise:", b" \n", "Summarise:"),
        ("Summarise:", b"", "Summarise:"),
        ("", b"one", "one"),
        (None, b"one\n\ntwo\n", "one\n\ntwo"),
        (None, b"\xef\xbb\xbfone", "one"),
        (None, "Grüße �".encode(), "Grüße �"),
    ],
)
def test_the_prompt_is_followed_by_stdin(
    prompt: str | None,
    content: bytes,
    asked: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ask(prompt, content, tmp_path, monkeypatch) == asked
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("prompt", [None, "", " "])
def test_an_empty_question_is_refused(
    prompt: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(typer.BadParameter, match="the prompt is empty"):
        ask(prompt, b"\n", tmp_path, monkeypatch)


def test_bytes_that_are_not_utf_8_are_replaced_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask("x", b"caf\xe9", tmp_path, monkeypatch) == "x\n\ncaf�"
    assert capsys.readouterr().err.startswith("warning: stdin is not all UTF-8")


@pytest.mark.parametrize("content", ["one".encode("utf-16"), b"%PDF-1.7\0"])
def test_a_binary_is_refused(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidRequest, match="stdin is not text"):
        ask("x", content, tmp_path, monkeypatch)


def test_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("myllm.cli.run.question._MAX_BYTES", 2**20)
    with pytest.raises(InvalidRequest, match="more than 1 MiB"):
        ask(None, b"x" * (2**20 + 1), tmp_path, monkeypatch)
