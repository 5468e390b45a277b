"""Which servers run as this user, so that commands send the key to no other program here.

Any user of the machine may listen on a free port. So each server leaves a file in the state folder,
which only its user can write, and the command line checks the process that the file names.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psutil
import structlog

_log = structlog.get_logger(__name__)
_FOLDER: Final = "servers"
_LARGEST: Final = 4096
# Linux reports a process's start relative to the boot time, which moves with clock corrections.
_CLOCK_S: Final = 2.0
# A socket that listens on one of these is reachable by every address of the machine.
_EVERYWHERE: Final = ("0.0.0.0", "::")
_LOOPBACK: Final = ("127.0.0.1", "::1")


@contextmanager
def noted(
    state_dir: Path, address: str, port: int, certificate: Path | None = None
) -> Iterator[None]:
    """Keep a file (mode 0600) that says where this process listens, and with which certificate if
    it speaks TLS, until the block ends.

    If it cannot be written, the log says so; commands then send the key only to a server that the
    user's settings name.
    """
    folder = state_dir / _FOLDER
    path = folder / f"{os.getpid()}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _forget_the_dead(folder)
        entry = {"address": address, "port": port, **_identity(os.getpid())}
        _write(path, entry | ({"tls_cert": str(certificate)} if certificate else {}))
    except OSError as failure:
        _log.warning("not noted where this server listens", file=str(path), cause=str(failure))
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def is_own(state_dir: Path, address: str, port: int) -> bool:
    """Whether a server of this user listens at `address`. That needs a file of such a server, and
    its process must be alive, have the noted start time, be this user's, and listen there."""
    return any(_listens(entry, address, port) for entry in _entries(state_dir))


def noted_certificate(state_dir: Path, host: str, port: int) -> Path | None:
    """The certificate of this user's server at `host` and `port`, if it has noted one.

    The server may have ended: a program that listens there now does not have the certificate's key.
    """
    hosts = {host, *_EVERYWHERE, *(_LOOPBACK if host == "localhost" else ())}
    for entry in _entries(state_dir):
        certificate = entry.get("tls_cert")
        if entry.get("port") == port and entry.get("address") in hosts and certificate:
            return Path(str(certificate))
    return None


def _entries(state_dir: Path) -> list[dict[str, Any]]:
    """What the files of this user's servers say, the latest first."""
    try:
        files = sorted((state_dir / _FOLDER).glob("*.json"), key=_changed, reverse=True)
    except OSError:
        return []
    return [entry for entry in map(_read, files) if entry]


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _identity(pid: int) -> dict[str, Any]:
    """The id and the start time, since ids alone are reused."""
    return {"pid": pid, "created": psutil.Process(pid).create_time()}


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write a new file, readable by its owner only from the start, and rename it to `path`."""
    aside = path.with_suffix(".new")
    aside.unlink(missing_ok=True)
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as out:
        json.dump(content, out)
    aside.replace(path)


def _read(path: Path) -> dict[str, Any] | None:
    """The content of a file that only this user can have written; None for any other file."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as file:
        state = os.fstat(file.fileno())
        is_ours = state.st_uid == os.geteuid() and stat.S_IMODE(state.st_mode) == 0o600
        if not (is_ours and stat.S_ISREG(state.st_mode)):
            return None
        try:
            entry = json.loads(file.read(_LARGEST))
        except ValueError:
            return None
    return entry if isinstance(entry, dict) else None


def _listens(entry: dict[str, Any], address: str, port: int) -> bool:
    """Whether the named process is still the one that wrote the file, and listens there."""
    try:
        process = psutil.Process(int(entry["pid"]))
        is_same = abs(process.create_time() - entry["created"]) < _CLOCK_S
        if not is_same or entry["port"] != port:
            return False
        uids = process.uids()
        if {uids.real, uids.effective} != {os.geteuid()}:
            return False
        return any(
            each.status == psutil.CONN_LISTEN
            and each.laddr.port == port
            and each.laddr.ip in (address, *_EVERYWHERE)
            for each in process.net_connections("tcp")
        )
    except (KeyError, TypeError, ValueError, OverflowError, OSError, psutil.Error):
        return False


def _forget_the_dead(folder: Path) -> None:
    """Remove the files of servers that were killed."""
    for path in folder.glob("*.json"):
        entry = _read(path)
        with suppress(OSError):
            if entry is not None and not psutil.pid_exists(int(entry.get("pid", 0))):
                path.unlink()
