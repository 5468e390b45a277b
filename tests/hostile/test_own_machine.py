"""Other users of the same machine: a foreign checkout, and a foreign server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from myllm.engine.engine import Engine
from myllm.running_servers import is_own, noted
from tests.api.credentials import ANN, port_of
from tests.hostile.attacks import others_are_served
from tests.keys import add_keys
from tests.serving import Serving, environment, serving

pytestmark = pytest.mark.full  # a process for each command

# Runs a command without a configured server address. Tests cannot share the default port, so its
# first argument replaces it.
AT_THE_DEFAULT_PORT = """
import sys
from myllm.settings import Settings
Settings.model_fields["port"].default = int(sys.argv.pop(1))
Settings.model_rebuild(force=True)
from myllm.__main__ import main
main()
"""


class Stranger(BaseHTTPRequestHandler):
    """Claims to be a MyLLM, requires a key, and records the keys it receives."""

    keys: list[str]

    def do_GET(self) -> None:
        self.keys += filter(None, (self.headers["Authorization"], self.headers["X-Api-Key"]))
        is_root = self.path == "/"
        answer = {"name": "MyLLM", "status": "healthy"} if is_root else {"detail": "a key, please"}
        body = json.dumps(answer).encode()
        self.send_response(200 if is_root else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


@contextmanager
def stranger() -> Iterator[tuple[int, list[str]]]:
    """The port of a foreign server, and the keys that it receives."""

    class Handler(Stranger):
        keys: list[str] = []  # noqa: RUF012 - a list for each server

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_port, Handler.keys
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def at_default_port(home: Path, port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", AT_THE_DEFAULT_PORT, str(port), *arguments],
        env=environment(home, api_key=ANN), cwd=Path(__file__).parents[2],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("command", [["ps"], ["sessions", "list"], ["run", "demo", "Hi"]])
def test_a_foreign_server_receives_no_key(home: Path, command: list[str]) -> None:
    with stranger() as (port, keys):
        done = at_default_port(home, port, *command)
    assert (done.returncode, keys) == (1, [])
    assert "MYLLM_API_KEY was not sent" in done.stderr
    assert "MYLLM_PORT" in done.stderr


def test_a_server_file_of_a_living_process_on_another_port(home: Path) -> None:
    """As after a server has ended, and another process of the same user has got its pid."""
    with stranger() as (port, keys):
        folder = home / "state" / "servers"
        folder.mkdir(parents=True)
        shell = psutil.Process(os.getppid())
        record = {"address": "127.0.0.1", "port": port, "pid": shell.pid}
        path = folder / "1.json"
        path.write_text(json.dumps(record | {"created": shell.create_time()}))
        path.chmod(0o600)
        assert at_default_port(home, port, "ps").returncode == 1
    assert keys == []


def test_a_configured_server_receives_the_key(home: Path) -> None:
    with stranger() as (port, keys):
        for command in (["ps"], ["sessions", "list"]):
            subprocess.run(
                [sys.executable, "-m", "myllm", *command],
                env=environment(home, port=port, api_key=ANN), cwd=Path(__file__).parents[2],
                stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
            )  # fmt: skip
    assert keys == [f"Bearer {ANN}"] * 2


def test_the_users_own_server_receives_the_key(engine: Engine, home: Path) -> None:
    add_keys(home, ann=ANN)
    with serving(home) as server:
        [file] = (home / "state" / "servers").iterdir()
        assert file.stat().st_mode & 0o777 == 0o600
        with others_are_served(server):
            done = at_default_port(home, port_of(server), "ps")
        assert (done.returncode, done.stderr) == (0, "")
        assert at_default_port(home / "other", port_of(server), "ps").returncode == 1
    assert not file.exists()


# Which server files are trusted


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A state folder, and the port of this process that a file there names."""
    with stranger() as (port, _), noted(tmp_path, "127.0.0.1", port):
        yield tmp_path, port


def file_of(state_dir: Path) -> Path:
    [path] = (state_dir / "servers").glob("*.json")
    return path


def test_a_file_of_this_process_is_trusted(listening: tuple[Path, int]) -> None:
    state_dir, port = listening
    assert is_own(state_dir, "127.0.0.1", port)
    assert not is_own(state_dir, "127.0.0.1", port + 1)
    assert not is_own(state_dir, "127.0.0.2", port)


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o666, 0o604])
def test_a_file_that_others_can_read_or_write_is_not_trusted(
    listening: tuple[Path, int], mode: int
) -> None:
    state_dir, port = listening
    file_of(state_dir).chmod(mode)
    assert not is_own(state_dir, "127.0.0.1", port)


@pytest.mark.parametrize(
    "change",
    [{"created": 1.0}, {"created": "now"}, {"pid": 1}, {"pid": -1}, {"pid": "x"}, {"pid": None},
     {"pid": 2**70}, {"port": 1}, {"port": None}],
)  # fmt: skip
def test_a_file_of_another_process_is_not_trusted(
    listening: tuple[Path, int], change: dict[str, Any]
) -> None:
    state_dir, port = listening
    path = file_of(state_dir)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert not is_own(state_dir, "127.0.0.1", port)


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", "{" * 5000, "\0"])
def test_other_content_is_not_trusted(listening: tuple[Path, int], content: str) -> None:
    state_dir, port = listening
    file_of(state_dir).write_text(content)
    assert not is_own(state_dir, "127.0.0.1", port)


def test_a_link_is_not_trusted(listening: tuple[Path, int]) -> None:
    state_dir, port = listening
    path = file_of(state_dir)
    path.rename(state_dir / "elsewhere")
    path.symlink_to(state_dir / "elsewhere")
    assert not is_own(state_dir, "127.0.0.1", port)


@pytest.mark.needs_root
def test_another_users_file_is_not_trusted(listening: tuple[Path, int]) -> None:
    state_dir, port = listening
    os.chown(file_of(state_dir), 65534, 65534)
    assert not is_own(state_dir, "127.0.0.1", port)


# A foreign checkout


@pytest.mark.parametrize("command", [["doctor"], ["ps"], ["list"], ["engine", "status"]])
def test_nothing_is_read_from_the_working_directory(
    home: Path, server: Serving, command: list[str]
) -> None:
    """No program that it names is started, and no host that it names receives the key."""
    checkout = home / "checkout"
    checkout.mkdir()
    with stranger() as (port, keys):
        program = checkout / "llama-server"
        program.write_text(f"#!/bin/sh\ntouch {home}/ran\n")
        program.chmod(0o755)
        settings = f"MYLLM_LLAMA_SERVER={program}\nMYLLM_PORT={port}\nMYLLM_MODELS_DIR=./m\n"
        for name in (".env", "config.toml", ".env.local"):
            (checkout / name).write_text(settings)
        own = environment(server.home, api_key=ANN)
        subprocess.run(
            [sys.executable, "-m", "myllm", *command],
            env=own | {"PYTHONPATH": str(Path(__file__).parents[2])}, cwd=checkout,
            stdin=subprocess.DEVNULL, capture_output=True, timeout=120,
        )  # fmt: skip
    assert keys == []
    assert not (home / "ran").exists()
