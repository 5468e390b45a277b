"""A PostgreSQL server for tests, on a private socket, from the programs that Debian installs."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.serving import wait_until

_START_S = 30.0


def programs() -> Path | None:
    """The folder with initdb and postgres; None when they are not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@contextmanager
def postgres_server() -> Iterator[str]:
    """Start a server, yield the URL of an empty database, and delete both at the end."""
    folder = programs()
    assert folder is not None, "no PostgreSQL; on Debian: apt install postgresql"
    home = Path(tempfile.mkdtemp(prefix="pg-"))
    # PostgreSQL refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    try:
        if user:
            shutil.chown(home, user)
        data = home / "data"
        initdb = [folder / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"]
        subprocess.run(initdb, user=user, check=True, capture_output=True, cwd=home)
        settings = ["-c", "listen_addresses=", "-c", "fsync=off", "-k", home]
        server = subprocess.Popen(
            [folder / "postgres", "-D", data, *settings],
            user=user,
            cwd=home,
            stderr=(home / "log").open("w"),
        )
        try:
            _wait(folder, home, server)
            yield f"postgresql://postgres@/postgres?host={home}"
        finally:
            server.terminate()
            server.wait(_START_S)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def stop_postgres(url: str, number: signal.Signals) -> None:
    """Send a signal to the PostgreSQL server at `url`, and wait until it has ended."""
    home = Path(parse_qs(urlsplit(url).query)["host"][0])
    pid = int((home / "data" / "postmaster.pid").read_text().split()[0])
    os.kill(pid, number)
    wait_until(lambda: _state(pid) in ("Z", ""), 30, "the end of PostgreSQL")


def _state(pid: int) -> str:
    """Of a process; nothing once it was reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _wait(folder: Path, home: Path, server: subprocess.Popen[bytes]) -> None:
    user = pwd.getpwuid(os.geteuid()).pw_name
    deadline = time.monotonic() + _START_S
    ready = [folder / "pg_isready", "-q", "-h", home, "-U", user]
    while subprocess.run(ready, check=False).returncode != 0:
        assert server.poll() is None, (home / "log").read_text()
        assert time.monotonic() < deadline, "PostgreSQL did not start"
        time.sleep(0.05)
