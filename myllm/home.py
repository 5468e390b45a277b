"""A home directory for a process that has none: HOME is not set, and its user is not in passwd."""

from __future__ import annotations

import os
import pwd
import stat
import tempfile
from pathlib import Path

from myllm.errors import InvalidSettings


def provide_home() -> Path | None:
    """Set HOME where it is missing or empty, for this process and for what it starts.

    It becomes the home that passwd names, or else a private directory in the temporary one, which
    is returned so that the user can be warned. Raises InvalidSettings when neither can be had.
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
    """The same one each time. In a directory that everybody can write to, another user could have
    made it, and would then choose which engine we run; so only our own one will do."""
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
