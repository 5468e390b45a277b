"""The network of the client programs: what it keeps inside, and what it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from tests.clients.conftest import TOOLED, Isolated
from tests.clients.isolated import isolated
from tests.serving import wait_until

pytestmark = pytest.mark.needs_network_namespace


def test_only_loopback(tmp_path: Path) -> None:
    with isolated() as network:
        shown = network.run(["ip", "-oneline", "link"], home=tmp_path)
        assert shown.stdout.startswith("1: lo: <LOOPBACK,UP")
        assert len(shown.stdout.splitlines()) == 1
        far = "import socket; socket.create_connection(('192.0.2.1', 80), 5)"
        tried = network.run([sys.executable, "-c", far], home=tmp_path)
        assert "Network is unreachable" in tried.stderr


def test_a_client_sees_only_its_own_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with isolated() as network:
        shown = network.run(["env"], home=tmp_path, MORE="1").stdout.splitlines()
        where = network.run(["pwd"], home=tmp_path).stdout
    assert f"HOME={tmp_path}" in shown
    assert "MORE=1" in shown
    assert not [line for line in shown if line.startswith("OPENAI")]
    assert where == f"{tmp_path}\n"


@pytest.mark.parametrize("ends", [True, False])
def test_nothing_outlives_a_client(ends: bool, tmp_path: Path) -> None:
    """Neither after its end nor after its time is over, not even a daemon."""
    seconds = "86399.5" if ends else "86399.75"
    script = f"setsid sleep {seconds} >/dev/null 2>&1 & {'exit 7' if ends else 'wait'}"
    with isolated() as network:
        if ends:
            assert network.run(["sh", "-c", script], home=tmp_path).returncode == 7
        else:
            with pytest.raises(subprocess.TimeoutExpired):
                network.run(["sh", "-c", script], home=tmp_path, timeout_s=1)
        wait_until(lambda: not _running(seconds), 10, "the daemon's end")


def _running(argument: str) -> list[psutil.Process]:
    return [each for each in psutil.process_iter() if argument in _arguments(each)]


def _arguments(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.more
def test_a_client_reaches_a_server_in_the_same_network(
    isolated_server: Isolated, tmp_path: Path
) -> None:
    network, server = isolated_server.network, isolated_server.server
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/health", trust_env=False)
    ask = f"import urllib.request as r; print(r.urlopen('{server.url}/v1/models').read().decode())"
    shown = network.run([sys.executable, "-c", ask], home=tmp_path)
    assert TOOLED in shown.stdout, shown.stderr
