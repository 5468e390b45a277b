"""Commands that ask a running server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.serving import Serving, environment


def myllm(home: Path, port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "myllm", *arguments],
        env=environment(home, port=port), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_load_ps_unload(server: Serving) -> None:
    port = int(server.url.rsplit(":", 1)[1])
    assert myllm(server.home, port, "load", "demo").stdout == "Model 'demo' loaded\n"
    heading, row = myllm(server.home, port, "ps").stdout.splitlines()
    assert heading.split()[:5] == ["MODEL", "ROLE", "STATE", "BUSY", "QUEUED"]
    assert row.split()[:5] == ["demo", "generate", "ready", "0/4", "0"]
    [instance] = json.loads(myllm(server.home, port, "ps", "--json").stdout)
    assert instance["model"] == "demo"
    assert myllm(server.home, port, "unload", "demo").stdout == "Model 'demo' unloaded\n"
    again = myllm(server.home, port, "unload", "demo")
    assert (again.returncode, again.stderr) == (1, "error: Model 'demo' is not loaded\n")


def test_stop_by_any_name(server: Serving) -> None:
    port = int(server.url.rsplit(":", 1)[1])
    assert myllm(server.home, port, "load", "demo:latest").returncode == 0
    assert myllm(server.home, port, "stop", "demo:latest").returncode == 0
    assert json.loads(myllm(server.home, port, "ps", "--json").stdout) == []


def test_without_a_server_they_say_what_to_do(home: Path) -> None:
    for command in (("ps",), ("load", "demo"), ("unload", "demo")):
        done = myllm(home, 1, *command)
        assert done.returncode == 1
        assert "start one with 'myllm serve'" in done.stderr


def test_version_and_completion(home: Path) -> None:
    assert myllm(home, 1, "--version").stdout.startswith("myllm 0.")
    assert "myllm" in myllm(home, 1, "--show-completion", "bash").stdout
