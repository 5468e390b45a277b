"""What the shell offers on Tab."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from myllm.engine.engine import Engine
from tests.api.credentials import ANN, bearer
from tests.ggufs import write_header
from tests.keys import add_keys
from tests.serving import environment, serving

pytestmark = pytest.mark.full  # each Tab is a process


def completed(env: Mapping[str, str], line: str) -> list[str]:
    """What bash gets for the last word of `line`; nothing else is printed."""
    asked = {
        "_MYLLM_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
    }
    program = Path(sys.executable).with_name("myllm")
    done = subprocess.run(
        [program], env={**env, **asked}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.fixture
def env(home: Path) -> dict[str, str]:
    """An environment with two models, of which one is broken, and no server."""
    folder = home / "models" / "tiny"
    write_header(folder / "tiny.gguf")
    (folder / "config.json").write_text('{"aliases": ["gpt-4o", "org/tiny"]}')
    (home / "models" / "torn").mkdir()
    (home / "models" / "torn" / "config.json").write_text("{")
    return environment(home, port=1)


@pytest.mark.more
@pytest.mark.parametrize("command", ["show", "rm", "remove", "cp", "load", "stop", "reload", "run"])
def test_names_of_models(env: dict[str, str], command: str) -> None:
    assert completed(env, f"myllm {command} t") == ["tiny", "torn"]


def test_all_names_of_models(env: dict[str, str], home: Path) -> None:
    assert completed(env, "myllm rm tiny ") == ["demo", "gpt-4o", "org/tiny", "tiny", "torn"]
    write_header(home / "other" / "elsewhere" / "x.gguf")
    assert completed(env, f"myllm --models-dir {home}/other show e") == ["elsewhere"]
    (home / "env").write_text(f"MYLLM_MODELS_DIR={home}/other\n")
    del env["MYLLM_MODELS_DIR"]
    assert completed(env, f"myllm --env-file {home}/env show e") == ["elsewhere"]


def test_commands(env: dict[str, str]) -> None:
    assert completed(env, "myllm sto") == ["stop"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"MYLLM_PORT": "no number"},
        {"MYLLM_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"},
        {"MYLLM_DATA_DIR": "/proc/none"},
        {"MYLLM_API_KEY": "a key with spaces"},
    ],
)
def test_failures_are_silent(env: dict[str, str], wrong: dict[str, str]) -> None:
    completed(env | wrong, "myllm show t")
    assert completed(env | wrong, "myllm sessions show ") == []


def test_ids_of_sessions_with_a_server_and_without(engine: Engine, home: Path) -> None:
    env = environment(home, port=1)
    with serving(home) as server:
        here = environment(home, port=server.url.rsplit(":", 1)[1])
        with server.client() as client:
            for session_id in ("trip-one", "trip-two", "other"):
                said = {"messages": [{"role": "user", "content": "x"}]}
                about = {"version": 1, "id": session_id, "model": "demo", "title": "A title"}
                made = client.post("/api/sessions/import", json=about | said)
                assert made.status_code == 201, made.text
        assert completed(here, "myllm sessions show tri") == ["trip-two", "trip-one"]
    assert completed(env, "myllm sessions rm other tri") == ["trip-two", "trip-one"]
    assert completed(env, "myllm run demo --session tri") == ["trip-two", "trip-one"]
    assert completed(env, "myllm sessions export ") == ["other", "trip-two", "trip-one"]


def test_the_request_to_a_server_has_the_key(engine: Engine, home: Path) -> None:
    add_keys(home, ann=ANN)
    with serving(home) as server:
        with server.client() as client:
            about = {"version": 1, "id": "ann-1", "model": "demo", "title": "t"}
            said = about | {"messages": [{"role": "user", "content": "x"}]}
            made = client.post("/api/sessions/import", json=said, headers=bearer(ANN))
            assert made.status_code == 201, made.text
        env = environment(home, port=server.url.rsplit(":", 1)[1])
        assert completed(env, "myllm sessions show ann") == []
        assert completed(env | {"MYLLM_API_KEY": ANN}, "myllm sessions show ann") == ["ann-1"]
        assert completed(env | {"MYLLM_API_KEY": ANN}, "myllm show d") == ["demo"]
    assert completed(environment(home, port=1), "myllm sessions show ann") == [], "it is Ann's"


def test_it_takes_little_time(env: dict[str, str]) -> None:
    before = os.times()
    completed(env, "myllm show t")
    after = os.times()
    used = after.children_user + after.children_system
    assert used - before.children_user - before.children_system < 3.0, "0.3 s, ten times over"
