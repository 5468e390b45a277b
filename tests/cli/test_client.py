"""A server that dies, is silent or requires a key during a command's request."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
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


def test_a_server_that_has_stopped_is_one_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as stopped:
        url = f"http://127.0.0.1:{stopped.getsockname()[1]}"
    expected = f"^no MyLLM server answers at {url}; start one with 'myllm serve'$"
    with PatientClient(url) as client:
        with pytest.raises(ServeFailed, match=expected):
            client.get("/api/requests", params={"limit": "1"})
        with pytest.raises(ServeFailed, match=expected), client.stream("GET", "/api/events"):
            pass


def test_a_broken_connection_is_told_without_a_number_of_the_system() -> None:
    def reset() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            at_once = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as pool:
        resetting = pool.submit(reset)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        broken = "^the connection to the server broke: Connection reset by peer$"
        with PatientClient(url) as client, pytest.raises(ServeFailed, match=broken):
            client.get("/")
        resetting.result()


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
