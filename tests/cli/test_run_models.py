"""`myllm run` with a GGUF file and with a repository of the hub."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from myllm.engine.engine import Engine
from myllm.models.registry import BUILTIN_DIR
from tests.api.credentials import port_of
from tests.cli.terminal import terminal
from tests.ggufs import write_header
from tests.hub import Hub, Repo, serve_hub
from tests.serving import Serving, environment

FRANCE = "What is the capital of France?"
PARIS = "The capital of France is Paris."
DEMO = BUILTIN_DIR / "demo" / "demo.gguf"
REPO, FILE = "org/Toy-GGUF", "toy.Q4_K_M.gguf"
SURE = ("--temperature", "0")


@pytest.fixture(autouse=True)
def _compiled(engine: Engine) -> None:
    """All of these need the engine."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub() as running:
        yield running


def surroundings(home: Path, hub: Hub | None) -> dict[str, str]:
    kept = {k: v for k, v in environment(home, port=1).items() if "proxy" not in k.lower()}
    if hub is None:
        return kept
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home / "hf"), "HF_TOKEN": ""}
    return kept | own


def run(
    home: Path, *arguments: str, hub: Hub | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "myllm", "run", *arguments],
        env=surroundings(home, hub) | more, stdin=subprocess.DEVNULL, cwd=home,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_a_file_is_run_where_it_lies_beside_a_running_server(
    engine: Engine, server: Serving
) -> None:
    home = server.home
    shutil.copy(DEMO, home / "My toy (1).gguf")
    shutil.copy(DEMO, home / "other.gguf")
    (home / "mmproj-other.gguf").write_bytes(b"of another model")
    for name in ("./My toy (1).gguf", "My toy (1).gguf", "~/My toy (1).gguf"):
        more = {"HOME": str(home), "MYLLM_LLAMA_SERVER": str(engine.server)}
        more["MYLLM_PORT"] = str(port_of(server))
        done = run(home, name, FRANCE, "--session", "file", *SURE, **more)
        assert done.stdout == PARIS + "\n", done.stderr
    with server.client() as api:
        assert api.get("/api/sessions/file").json()["model"] == "My-toy-1-"
        assert "My-toy-1-" not in [each["name"] for each in api.get("/api/models").json()["models"]]
    assert server.engines() == []
    assert not (home / "models").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("./nowhere.gguf", "error: there is no file nowhere.gguf"),
        ("./notes.gguf", "notes.gguf is not a GGUF file: it does not begin with 'GGUF'\n"),
        ("./folder", "error: folder is a folder"),
        ("./big-00001-of-00002.gguf", "big-00002-of-00002.gguf is missing, a part of the model"),
    ],
)
def test_a_file_that_is_not_a_model_is_one_clear_line(home: Path, name: str, words: str) -> None:
    (home / "notes.gguf").write_text("Dear diary")
    (home / "folder").mkdir()
    write_header(home / "big-00001-of-00002.gguf")
    done = run(home, name, "hi")
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_repository_is_pulled_first(home: Path, hub: Hub) -> None:
    hub.repos[REPO] = Repo({FILE: DEMO.read_bytes(), "toy.Q8_0.gguf": DEMO.read_bytes()})
    first = run(home, f"hf.co/{REPO}", FRANCE, *SURE, hub=hub)
    assert first.stdout == PARIS + "\n", first.stderr
    assert "toy: 100%" in first.stderr
    asked = len(hub.requests)
    again = run(home, f"https://huggingface.co/{REPO}", FRANCE, *SURE, hub=hub)
    assert (again.stdout, again.stderr) == (PARIS + "\n", "")
    assert len(hub.requests) == asked
    other = run(home, f"hf.co/{REPO}:q8_0", FRANCE, *SURE, hub=hub)
    assert other.stdout == PARIS + "\n"
    assert (home / "models" / "toy-q8_0" / "toy.Q8_0.gguf").exists()


@pytest.mark.more
def test_a_model_of_that_name_from_elsewhere_is_not_run_instead(home: Path, hub: Hub) -> None:
    folder = home / "models" / "toy"
    folder.mkdir(parents=True)
    shutil.copy(DEMO, folder)
    (folder / "config.json").write_text(json.dumps({"source": "another/toy@123"}))
    done = run(home, f"hf.co/{REPO}", "hi", hub=hub)
    assert done.returncode == 1
    assert "the model 'toy' is here, but not from org/Toy-GGUF" in done.stderr


@pytest.mark.parametrize(("key", "is_pulled"), [("n", False), ("", True)])
def test_a_user_at_a_terminal_is_asked_first(
    home: Path, hub: Hub, key: str, is_pulled: bool
) -> None:
    hub.repos[REPO] = Repo({FILE: DEMO.read_bytes()})
    own = {k: v for k, v in surroundings(home, hub).items() if k.startswith("HF_")}
    with terminal(home, "run", f"hf.co/{REPO}", FRANCE, *SURE, **own) as shown:
        size = os.path.getsize(DEMO) / 1e6
        shown.until(f"toy is not here yet. Pull {FILE} ({size:.0f} MB) of {REPO}? [Y/n]")
        shown.type(f"{key}\r")
        shown.until(PARIS if is_pulled else "Nothing was pulled")
        assert shown.process.wait(60) == (0 if is_pulled else 1)
    assert (home / "models" / "toy").exists() is is_pulled
