"""A home directory for a process without one: HOME is not set and its user is not in passwd."""

from __future__ import annotations

import os
import pwd
import stat
import tempfile
from pathlib import Path

from myllm.errors import InvalidSettings


def provide_home() -> Path | None:
    """Set HOME if it is missing or empty, for this process and its children.

    It becomes the home that passwd names, or else a private directory below the temporary
    directory, which is returned so that the caller can warn the user. Raises InvalidSettings when
    neither is available.
    """
    if os.environ.get("HOME"):
        return None
    try:
        named = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        named = ""
    if named and os.path.isdir(named):
        os.environ["HOME"] = named
        return None
    made = _private_directory()
    os.environ["HOME"] = str(made)
    return made


def _private_directory() -> Path:
    """The same directory each time. Its parent is writable for all users, so another user may have
    made it, and could then choose which engine we run; only one that this user owns is accepted."""
    try:
        path = Path(tempfile.gettempdir()) / f"myllm-{os.getuid()}"
        path.mkdir(mode=0o700, exist_ok=True)
        state = path.lstat()
    except OSError as failure:
        reason = failure.strerror or "no temporary directory can be written to"
        raise InvalidSettings(
            f"there is no home directory, and none can be made: {reason}; set HOME"
        ) from None
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid() or state.st_mode & 0o022:
        raise InvalidSettings(
            f"there is no home directory, and {path} can be changed by other users; set HOME"
        )
    return path
