"""`myllm list`, `show` and `remove`, without a server except in the last test."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from myllm.engine.engine import Engine
from tests.ggufs import write_header
from tests.serving import environment, serving

pytestmark = pytest.mark.full  # a process for each command


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
    assert rows[0] == ["NAME", "FAMILY", "SIZE", "QUANT", "CONTEXT", "TEMPLATE"]
    assert ["tiny", "llama", "0", "MB", "Q4_K_M", "2048", "gguf"] in rows
    [heading, problem] = ended.stderr.splitlines()
    assert heading == "Not usable:"
    assert problem.startswith(f"  broken: {models_dir}/broken holds no GGUF file; put one into it")


def test_list_as_json(models_dir: Path) -> None:
    listed = {
        model["name"]: model for model in json.loads(myllm(models_dir, "list", "--json").stdout)
    }
    assert listed["tiny"]["context_size"] == 2048
    assert "holds no GGUF file" in listed["broken"]["problem"]


def test_list_gives_working_advice_on_unused_entries(models_dir: Path) -> None:
    (models_dir / "tiny" / "tiny.gguf").rename(models_dir / "My Model.gguf")
    (models_dir / "tiny").rename(models_dir / "with space")
    write_header(models_dir / "with space" / "other.gguf")
    ended = myllm(models_dir, "list")
    assert "demo" in ended.stdout
    _, *problems = ended.stderr.splitlines()
    for problem in problems:
        _, found, advice = problem.partition("; try: ")
        if found:
            subprocess.run(advice, shell=True, check=True)
    listed = {
        model["name"]: model for model in json.loads(myllm(models_dir, "list", "--json").stdout)
    }
    assert {name for name, model in listed.items() if "problem" not in model} == {
        *("demo", "My-Model", "with-space"),
    }


def test_json_has_the_unused_entries(models_dir: Path) -> None:
    write_header(models_dir / "loose.gguf")
    (models_dir / "no name").mkdir()
    listed = json.loads(myllm(models_dir, "list", "--json").stdout)
    problems = {model["name"]: model["problem"] for model in listed if "problem" in model}
    assert set(problems) == {"broken", "loose.gguf", "no name"}
    assert f"mkdir {models_dir}/loose && mv {models_dir}/loose.gguf" in problems["loose.gguf"]
    assert set(listed[0]) <= set(listed[-1]) | {"aliases"}


def test_the_catalog_can_be_listed(models_dir: Path) -> None:
    (models_dir / "tiny").rename(models_dir / "phi-2")
    listed = json.loads(myllm(models_dir, "list", "--available", "--json").stdout)
    assert [entry["name"] for entry in listed if entry["pulled"]] == ["phi-2"]
    assert len(myllm(models_dir, "list", "--available").stdout.splitlines()) == 6


def test_show_prints_all_details(models_dir: Path) -> None:
    shown = json.loads(myllm(models_dir, "show", "tiny", "--json").stdout)
    assert shown["path"] == str(models_dir / "tiny")
    assert shown["parameter_count"] == 38400
    assert shown["memory"]["estimated_mb"] > 0
    assert str(models_dir / "tiny") in myllm(models_dir, "show", "tiny").stdout


@pytest.mark.parametrize("command", ["show", "remove"])
def test_an_unknown_name_is_an_error(models_dir: Path, command: str) -> None:
    ended = myllm(models_dir, command, "../tiny")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: Model '../tiny' not found. Available models: broken, ")


@pytest.mark.parametrize("name", ["tiny", "broken"])
def test_remove_does_not_ask_when_piped(models_dir: Path, name: str) -> None:
    assert myllm(models_dir, "remove", name).stdout == f"Removed {name}\n"
    assert not (models_dir / name).exists()


def answered(models_dir: Path, answers: bytes, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command on a terminal, where the user types `answers`."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answers)
        return myllm(models_dir, *arguments, stdin=theirs)
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize(("answer", "code"), [(b"n\n", 1), (b"y\n", 0)])
def test_remove_asks_on_a_terminal(models_dir: Path, answer: bytes, code: int) -> None:
    assert answered(models_dir, answer, "remove", "tiny").returncode == code
    assert (models_dir / "tiny").exists() is (code == 1)


def test_rm_takes_several_names_and_reports_those_that_fail(models_dir: Path) -> None:
    ended = myllm(models_dir, "rm", "broken", "nope", "tiny:latest")
    assert ended.stdout == "Removed broken\nRemoved tiny\n"
    assert ended.stderr.startswith("error: Model 'nope' not found")
    assert ended.returncode == 1
    assert list(models_dir.glob("[a-z]*")) == []


def test_rm_asks_for_each(models_dir: Path) -> None:
    ended = answered(models_dir, b"n\ny\n", "rm", "tiny", "broken")
    assert ended.stdout.endswith("Removed broken\n")
    assert "Kept tiny\n" in ended.stdout
    assert (ended.returncode, (models_dir / "tiny").exists()) == (1, True)


def test_an_alias_is_shown_and_never_removed_by_mistake(models_dir: Path) -> None:
    (models_dir / "tiny" / "config.json").write_text('{"aliases": ["gpt-4o"]}')
    for name in ("gpt-4o", "gpt-4o:latest", "tiny:latest"):
        assert json.loads(myllm(models_dir, "show", name, "--json").stdout)["name"] == "tiny"
    refused = myllm(models_dir, "rm", "gpt-4o")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("error: 'gpt-4o' is an alias of the model 'tiny'; ")
    assert refused.stderr.endswith(", or give --yes\n")
    declined = answered(models_dir, b"n\n", "rm", "gpt-4o")
    question = "'gpt-4o' is an alias of 'tiny'; remove the model 'tiny' (0 MB)? [y/N]"
    assert declined.stdout.startswith(question)
    assert declined.returncode == 1
    assert (models_dir / "tiny").exists()
    assert answered(models_dir, b"y\n", "rm", "gpt-4o").returncode == 0
    assert not (models_dir / "tiny").exists()


def test_yes_confirms_an_alias(models_dir: Path) -> None:
    (models_dir / "tiny" / "config.json").write_text('{"aliases": ["gpt-4o"]}')
    assert myllm(models_dir, "rm", "gpt-4o", "--yes").stdout == "Removed tiny\n"


def test_removing_a_built_in_model_is_refused_without_a_question(models_dir: Path) -> None:
    ended = answered(models_dir, b"y\n", "rm", "demo")
    assert ended.stderr == "error: Model 'demo' comes with MyLLM and cannot be removed\n"
    assert ended.stdout == ""


def test_cp(models_dir: Path) -> None:
    ended = myllm(models_dir, "cp", "tiny:latest", "other")
    assert ended.stdout == "Copied tiny:latest to other, sharing its GGUF\n"
    assert json.loads(myllm(models_dir, "show", "other", "--json").stdout)["name"] == "other"
    again = myllm(models_dir, "cp", "tiny", "other")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.startswith("error: There is a model 'other' already")


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
