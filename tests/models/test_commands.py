"""`myllm list`, `show` and `remove`: with no server running, but for the last."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from myllm.engine.types import Engine
from tests.ggufs import write_header
from tests.serving import environment, serving


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """A model folder with one good and one broken model."""
    write_header(tmp_path / "models" / "tiny" / "tiny.gguf")
    (tmp_path / "models" / "broken").mkdir()
    return tmp_path / "models"


def myllm(
    models_dir: Path, *arguments: str, stdin: int = subprocess.DEVNULL, port: int = 1
) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "myllm", "--models-dir", str(models_dir), *arguments]
    env = environment(models_dir.parent, port=port)
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


@pytest.mark.full
def test_a_running_server_removes_its_own_models_and_no_others(engine: Engine, home: Path) -> None:
    for folder in ("models", "elsewhere"):
        write_header(home / folder / "tiny" / "tiny.gguf")
    with serving(home, llama_server=engine.server) as server:
        port = int(server.url.rsplit(":", 1)[1])
        assert myllm(home / "elsewhere", "remove", "tiny", port=port).returncode == 0
        assert "DELETE" not in server.log
        assert (home / "models" / "tiny").exists()
        assert myllm(home / "models", "remove", "tiny", port=port).returncode == 0
        assert "DELETE" in server.log
        assert not (home / "models" / "tiny").exists()
