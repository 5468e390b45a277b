"""A server that dies, is silent or requires a key during a command's request."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from myllm.cli.http_client import PatientClient
from myllm.cli.machine_checks import port
from myllm.engine.engine import Engine
from myllm.errors import ServeFailed
from tests.keys import add_keys
from tests.serving import environment, serving, wait_until


def test_a_silent_server_is_given_up_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with PatientClient(url, silence_s=0.1) as client:
            with pytest.raises(ServeFailed, match="has been silent"):
                client.get("/")
            with pytest.raises(ServeFailed, match="has been silent"), client.stream("GET", "/"):
                pass


def test_a_server_that_dies_is_one_clear_line(engine: Engine, home: Path) -> None:
    with serving(home) as server, server.client() as api:
        assert api.post("/api/models/demo/load").status_code == 200
        [process] = server.engines()
        process.suspend()
        commands = [
            subprocess.Popen(
                [sys.executable, "-m", "myllm", "run", "demo", "Hi", *how],
                env=environment(home, port=server.url.rsplit(":", 1)[1]),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for how in ((), ("--json",))
        ]  # fmt: skip
        wait_until(lambda: api.get("/health").json()["active"] == 2, 20, "the questions")
        server.process.kill()
        for command in commands:
            _, stderr = command.communicate(timeout=20)
            assert command.returncode == 1
            assert stderr.startswith("error: the connection to the server broke")
            assert stderr.count("\n") == 1


def test_doctor_recognises_a_server_that_requires_keys(engine: Engine, home: Path) -> None:
    add_keys(home, ann="secret")
    with serving(home) as server:
        found = port("127.0.0.1", int(server.url.rsplit(":", 1)[1]))
    assert found.level == "ok"
    assert "a running MyLLM" in found.finding
