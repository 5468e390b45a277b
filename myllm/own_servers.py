"""Which servers run as this user, so that their key is shown to no other program on this machine.

Anybody may listen on a port that nobody has taken. So a server leaves a file in the state folder,
for its user alone, and whoever asks looks at the process that it names.
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
# Linux tells when a process began by the machine's start, which a corrected clock moves a little.
_CLOCK_S: Final = 2.0
# A socket that listens on one of these is reached by every address of the machine.
_EVERYWHERE: Final = ("0.0.0.0", "::")


@contextmanager
def noted(state_dir: Path, address: str, port: int) -> Iterator[None]:
    """Tell by a file (mode 0600) that this process listens there, until the block ends.

    Where it cannot be written the log says so: then the key goes to a server that is named only.
    """
    folder = state_dir / _FOLDER
    path = folder / f"{os.getpid()}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _forget_the_dead(folder)
        _write(path, {"address": address, "port": port, **_identity(os.getpid())})
    except OSError as failure:
        _log.warning("not noted where this server listens", file=str(path), cause=str(failure))
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def is_own(state_dir: Path, address: str, port: int) -> bool:
    """Whether what listens at `address` is a server of this user, by what one has noted and by
    what the process does now: it lives, began at that time, is ours, and listens there."""
    try:
        files = list((state_dir / _FOLDER).glob("*.json"))
    except OSError:
        return False
    return any(_listens(told, address, port) for told in map(_read, files) if told)


def _identity(pid: int) -> dict[str, Any]:
    """An id alone is given to another process sooner or later."""
    return {"pid": pid, "created": psutil.Process(pid).create_time()}


def _write(path: Path, content: dict[str, Any]) -> None:
    """Aside and renamed, for the owner alone from the start."""
    aside = path.with_suffix(".new")
    aside.unlink(missing_ok=True)
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as out:
        json.dump(content, out)
    aside.replace(path)


def _read(path: Path) -> dict[str, Any] | None:
    """What a file says that only this user could have written; None for any other."""
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
            told = json.loads(file.read(_LARGEST))
        except ValueError:
            return None
    return told if isinstance(told, dict) else None


def _listens(told: dict[str, Any], address: str, port: int) -> bool:
    """Whether the process that is named is the one that was meant, and listens there."""
    try:
        process = psutil.Process(int(told["pid"]))
        is_same = abs(process.create_time() - told["created"]) < _CLOCK_S
        if not is_same or told["port"] != port:
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
    """Remove what servers left that were killed."""
    for path in folder.glob("*.json"):
        told = _read(path)
        with suppress(OSError):
            if told is not None and not psutil.pid_exists(int(told.get("pid", 0))):
                path.unlink()
