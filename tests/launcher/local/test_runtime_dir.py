"""The directory of sockets, and the cleanup after a killed server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from myllm.engine.engine import Engine
from myllm.launcher.local.runtime_dir import RuntimeDir
from tests.serving import serving, stop, wait_until

SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")


def left_by_a_dead_server(base: Path) -> RuntimeDir:
    directory = RuntimeDir(base)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    created = psutil.Process(ended.pid).create_time()
    ended.wait()
    (directory.path / "owner").write_text(f"{ended.pid} {created}\n")
    return directory


def test_the_directory_is_private_and_goes_with_its_owner(home: Path) -> None:
    directory = RuntimeDir(home)
    assert directory.path.stat().st_mode & 0o777 == 0o700
    directory.remove()
    assert list(home.iterdir()) == []


def test_the_directory_of_a_dead_server_is_removed_and_its_engine_ended(home: Path) -> None:
    old = left_by_a_dead_server(home)
    socket = old.new_socket()
    socket.touch()
    with subprocess.Popen(SLEEP) as engine:
        old.note_engine(socket, engine.pid)
        new = RuntimeDir(home)
        assert not psutil.pid_exists(engine.pid)
    assert [path for path in home.iterdir() if path.is_dir()] == [new.path]


def test_another_process_with_the_same_id_is_left_alone(home: Path) -> None:
    old = left_by_a_dead_server(home)
    with subprocess.Popen(SLEEP) as other:
        try:
            (old.path / "1.pid").write_text(f"{other.pid} 12345.0\n")
            RuntimeDir(home)
            assert other.poll() is None
        finally:
            other.kill()
    assert not old.path.exists()


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_a_directory_open_to_others_is_not_trusted(home: Path, mode: int) -> None:
    old = left_by_a_dead_server(home)
    with subprocess.Popen(SLEEP) as other:
        try:
            old.note_engine(old.new_socket(), other.pid)
            old.path.chmod(mode)
            RuntimeDir(home)
            assert other.poll() is None
        finally:
            other.kill()
    assert old.path.exists()


@pytest.mark.needs_root
def test_another_users_directory_is_not_trusted(home: Path) -> None:
    """Its owner file may be a link to one of our files."""
    old = left_by_a_dead_server(home)
    ours = home / "ours"
    (old.path / "owner").rename(ours)
    (old.path / "owner").symlink_to(ours)
    with subprocess.Popen(SLEEP) as other:
        try:
            old.note_engine(old.new_socket(), other.pid)
            os.chown(old.path, 65534, 65534)
            RuntimeDir(home)
            assert other.poll() is None
        finally:
            other.kill()
    assert old.path.exists()


def test_a_link_to_a_directory_is_not_followed(home: Path) -> None:
    old = left_by_a_dead_server(home / "elsewhere")
    (home / old.path.name).symlink_to(old.path)
    RuntimeDir(home)
    assert old.path.exists()


def test_a_running_servers_directory_is_left_alone(home: Path) -> None:
    running = RuntimeDir(home)
    RuntimeDir(home)
    assert running.path.exists()


@pytest.mark.parametrize(
    "content", ["", "x y", str(os.getpid())], ids=["empty", "text", "pid alone"]
)
def test_a_damaged_identity_names_no_process(home: Path, content: str) -> None:
    old = left_by_a_dead_server(home)
    (old.path / "1.pid").write_text(content)
    RuntimeDir(home)
    assert not old.path.exists()


def test_after_kill_9_no_engine_runs_and_the_next_server_cleans_up(
    engine: Engine, home: Path
) -> None:
    with serving(home) as server:
        with server.client() as api:
            assert api.post("/api/models/demo/load").status_code == 200
        engines = server.engines()
        server.process.kill()
        wait_until(lambda: not any(each.is_running() for each in engines), 20, "no orphaned engine")
    [left] = (home / "run").iterdir()
    with serving(home) as server:
        with server.client() as api:
            assert api.post("/api/models/demo/load").status_code == 200
        assert not left.exists()
        assert len(list((home / "run").iterdir())) == 1
        assert stop(server.process) == 0
    assert list((home / "run").iterdir()) == []


def test_a_directory_removed_under_a_running_server_is_made_again(
    engine: Engine, home: Path
) -> None:
    with serving(home) as server, server.client() as api:
        question = {"model": "demo", "prompt": "x", "stream": False, "options": {"max_tokens": 2}}
        assert api.post("/api/generate", json=question).status_code == 200
        shutil.rmtree(home / "run")
        assert api.post("/api/generate", json=question).status_code == 200
        [instance] = api.get("/api/instances").json()["instances"]
        assert instance["restarts"] == 1


def test_unwritable_logs_cause_one_error_and_no_retry(engine: Engine, home: Path) -> None:
    (home / "state").write_text("a file where a folder belongs")
    with serving(home) as server, server.client() as api:
        question = {"model": "demo", "prompt": "x", "stream": False}
        answer = api.post("/api/generate", json=question)
        assert answer.status_code == 500
        assert "MYLLM_STATE_DIR" in answer.json()["detail"]
        assert server.log.count("engine starting") == 1
