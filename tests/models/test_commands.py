"""`myllm list`, `show` and `remove`, with no server running."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ggufs import write_header
from tests.serving import environment


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """A model folder with one good and one broken model."""
    write_header(tmp_path / "models" / "tiny" / "tiny.gguf")
    (tmp_path / "models" / "broken").mkdir()
    return tmp_path / "models"


def myllm(
    models_dir: Path, *arguments: str, stdin: int = subprocess.DEVNULL
) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "myllm", *arguments]
    env = environment(models_dir.parent, port=1)
    return subprocess.run(line, env=env, stdin=stdin, capture_output=True, text=True, timeout=60)


def test_list_is_plain_when_piped(models_dir: Path) -> None:
    ended = myllm(models_dir, "list")
    rows = [line.split() for line in ended.stdout.splitlines()]
    assert rows[0] == ["NAME", "FAMILY", "SIZE", "QUANT", "CONTEXT"]
    assert ["tiny", "llama", "0", "MB", "Q4_K_M", "2048"] in rows
    assert "broken cannot be used" in ended.stderr


def test_list_as_json(models_dir: Path) -> None:
    listed = {
        model["name"]: model for model in json.loads(myllm(models_dir, "list", "--json").stdout)
    }
    assert listed["tiny"]["context_size"] == 2048
    assert "holds no GGUF file" in listed["broken"]["problem"]


def test_the_catalog_can_be_listed(models_dir: Path) -> None:
    (models_dir / "tiny").rename(models_dir / "phi-2")
    listed = json.loads(myllm(models_dir, "list", "--available", "--json").stdout)
    assert [entry["name"] for entry in listed if entry["pulled"]] == ["phi-2"]
    assert len(myllm(models_dir, "list", "--available").stdout.splitlines()) == 6


def test_show_tells_everything(models_dir: Path) -> None:
    shown = json.loads(myllm(models_dir, "show", "tiny", "--json").stdout)
    assert shown["path"] == str(models_dir / "tiny")
    assert shown["parameter_count"] == 38400
    assert shown["memory"]["estimated_mb"] > 0
    assert str(models_dir / "tiny") in myllm(models_dir, "show", "tiny").stdout


@pytest.mark.parametrize("command", ["show", "remove"])
def test_an_unknown_name_is_told(models_dir: Path, command: str) -> None:
    ended = myllm(models_dir, command, "../tiny")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: Model '../tiny' not found. Available models: broken, ")


@pytest.mark.parametrize("name", ["tiny", "broken"])
def test_remove_asks_nothing_when_piped(models_dir: Path, name: str) -> None:
    assert myllm(models_dir, "remove", name).stdout == f"Removed {name}\n"
    assert not (models_dir / name).exists()


@pytest.mark.parametrize(("answer", "code"), [(b"n\n", 1), (b"y\n", 0)])
def test_remove_asks_on_a_terminal(models_dir: Path, answer: bytes, code: int) -> None:
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer)
        assert myllm(models_dir, "remove", "tiny", stdin=theirs).returncode == code
    finally:
        os.close(ours)
        os.close(theirs)
    assert (models_dir / "tiny").exists() is (code == 1)
