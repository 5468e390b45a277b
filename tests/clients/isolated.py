"""A network that has only loopback, for a server and the client programs that talk to it.

Agents report usage, look for updates and fetch lists of models. In here none of that leaves the
machine, and a client that cannot work without the internet fails its test.

    with isolated() as network, serving(home, within=network.enter) as server:
        done = network.run([*codex, "exec", "Hello"], home=folder, cwd=project, URL=server.url)
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_START_S = 10.0
_UP = "ip link set lo up && echo up && exec cat"
# A process namespace of its own: whatever a command leaves behind ends with it.
_REAPED = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--")
_QUIET = {
    "DO_NOT_TRACK": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_AUTOUPDATER": "1",
    "NO_UPDATE_NOTIFIER": "1",
    "npm_config_update_notifier": "false",
    "NO_COLOR": "1",
    "TERM": "dumb",
}
"""What common tools read to send no telemetry, look for no updates and print plain text."""


@dataclass(frozen=True)
class Network:
    """A network with only loopback; `enter` is the command that runs another command in it."""

    enter: tuple[str, ...]

    def run(
        self,
        command: Sequence[str | Path],
        *,
        home: Path,
        cwd: Path | None = None,
        timeout_s: float = 100.0,
        **variables: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run a client to its end, with nothing of this process's environment but PATH.

        `home` is its HOME and, without `cwd`, its working directory; `variables` are added to its
        environment. All processes it started are gone when this returns. Raises
        subprocess.TimeoutExpired after `timeout_s`.
        """
        return subprocess.run(
            [*self.enter, *_REAPED, *map(str, command)],
            cwd=cwd or home,
            env=_environment(home) | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )


@contextmanager
def isolated() -> Iterator[Network]:
    """A network of its own, which lasts as long as this block or this process."""
    is_root = os.geteuid() == 0
    unshare = ["unshare", "--net"] if is_root else ["unshare", "--net", "--map-root-user"]
    holder = subprocess.Popen(
        [*unshare, "sh", "-c", _UP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "up\n", "no network namespace"
        user = () if is_root else ("--user", "--preserve-credentials")
        yield Network(("nsenter", "--target", str(holder.pid), "--net", *user, "--"))
    finally:
        holder.stdin.close()
        holder.stdout.close()
        try:
            holder.wait(_START_S)
        except subprocess.TimeoutExpired:
            holder.kill()
            holder.wait()


def can_isolate() -> bool:
    """Whether this process may make such a network, and a process namespace in it."""
    try:
        with isolated() as network:
            tried = [*network.enter, *_REAPED, "true"]
            subprocess.run(tried, check=True, capture_output=True, timeout=_START_S)
    except (AssertionError, OSError, subprocess.SubprocessError):
        return False
    return True


def _environment(home: Path) -> Mapping[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", **_QUIET}
