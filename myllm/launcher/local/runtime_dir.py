"""The private directory of the engines' Unix sockets, and what dead servers left behind.

Each directory names its owner, and each engine in it has a file of its own, both as process id
and start time, because the system reuses ids.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

import psutil
import structlog

from myllm.errors import EngineError

_log = structlog.get_logger(__name__)
_PREFIX = "myllm-"
_OWNER = "owner"
# The kernel accepts 107 bytes of path; the rest is for the names of the sockets.
_LONGEST_DIRECTORY = 60
_AFTER_KILL_S = 5.0


class RuntimeDir:
    """A directory of mode 0700 that this process made and removes again.

    `parent` None means the user's runtime directory, or the temporary one. If its path is too long
    for a Unix socket, the temporary directory is used, or else /tmp. What killed servers left there
    is removed, and their engines, if some still run, are ended.
    """

    def __init__(self, parent: Path | None = None) -> None:
        base = _short(parent or _default_parent(), Path(tempfile.gettempdir()))
        try:
            base.mkdir(parents=True, exist_ok=True, mode=0o700)
            sweep(base)
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
            _write_identity(self.path / _OWNER, os.getpid())
        except OSError as failure:
            raise EngineError(
                f"cannot make the runtime directory in {base}: {failure.strerror}; "
                "set MYLLM_RUNTIME_DIR to a writable directory with a short path"
            ) from failure
        self._made = 0

    def new_socket(self) -> Path:
        """A path that no socket of this process has had before.

        The directory is made again if a cleanup of the temporary directory has removed it. Raises
        OSError when that fails, or when another user has made it meanwhile.
        """
        if not _is_private(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.mkdir(mode=0o700)
            _write_identity(self.path / _OWNER, os.getpid())
        self._made += 1
        return self.path / f"{self._made}.sock"

    def note_engine(self, socket: Path, pid: int) -> None:
        """Record the engine of `socket`, for a server that starts after this one was killed."""
        with contextlib.suppress(psutil.NoSuchProcess):
            _write_identity(socket.with_suffix(".pid"), pid)

    def forget_engine(self, socket: Path) -> None:
        """Remove the files of an engine that has been reaped."""
        for path in (socket, socket.with_suffix(".pid")):
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the directory with everything in it."""
        shutil.rmtree(self.path, ignore_errors=True)


def sweep(base: Path) -> None:
    """End the engines and remove the directories of servers that have ended.

    In a directory that all users can write to, another user could name a process to kill: so only
    this user's private directories are believed, and no link is followed.
    """
    for owner in base.glob(f"{_PREFIX}*/{_OWNER}"):
        try:
            if not _is_private(owner.parent) or _process(owner) is not None:
                continue
            for engine in owner.parent.glob("*.pid"):
                _end(_process(engine))
        except OSError as failure:  # another server sweeps as well
            _log.debug("not swept", directory=str(owner.parent), cause=str(failure))
            continue
        shutil.rmtree(owner.parent, ignore_errors=True)
        _log.info("removed what a killed server left", directory=str(owner.parent))


def _is_private(directory: Path) -> bool:
    """Whether it is a directory that only this user can open."""
    try:
        state = directory.lstat()
    except FileNotFoundError:
        return False
    is_ours = state.st_uid == os.getuid()
    return stat.S_ISDIR(state.st_mode) and is_ours and stat.S_IMODE(state.st_mode) == 0o700


def _write_identity(path: Path, pid: int) -> None:
    aside = path.with_suffix(".new")
    aside.write_text(f"{pid} {psutil.Process(pid).create_time()}\n")
    os.replace(aside, path)


def _process(identity: Path) -> psutil.Process | None:
    """The process that the file names, if it still runs."""
    try:
        pid, created = identity.read_text().split()
        process = psutil.Process(int(pid))
        return process if process.create_time() == float(created) else None
    except (ValueError, psutil.Error):
        return None


def _end(process: psutil.Process | None) -> None:
    if process is not None:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
            process.kill()
            process.wait(_AFTER_KILL_S)


def _short(*places: Path) -> Path:
    """The first of `places` that is short enough for the names of the sockets."""
    fitting = (place for place in places if len(os.fsencode(place)) <= _LONGEST_DIRECTORY)
    return next(fitting, Path("/tmp"))


def _default_parent() -> Path:
    """`$XDG_RUNTIME_DIR` if it is a directory of this user, else the temporary directory."""
    named = os.environ.get("XDG_RUNTIME_DIR")
    if named:
        path = Path(named)
        try:
            state = path.stat()
        except OSError:
            return Path(tempfile.gettempdir())
        if stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid():
            return path
    return Path(tempfile.gettempdir())
