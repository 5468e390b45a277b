"""The private directory where the engines' Unix sockets live."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path

from myllm.errors import EngineError

# The kernel takes 107 bytes of path; the rest is for the sockets' own names.
_LONGEST_DIRECTORY = 60


class RuntimeDir:
    """A directory of mode 0700 that this process made and removes again.

    `parent` None means the user's runtime directory, or the temporary one. A parent whose
    path is too long for a Unix socket is passed over for the temporary directory.
    """

    def __init__(self, parent: Path | None = None) -> None:
        base = parent or _default_parent()
        try:
            base.mkdir(parents=True, exist_ok=True, mode=0o700)
            if len(os.fsencode(base)) > _LONGEST_DIRECTORY:
                base = Path(tempfile.gettempdir())
            self.path = Path(tempfile.mkdtemp(prefix="myllm-", dir=base))
        except OSError as failure:
            raise EngineError(
                f"cannot make the runtime directory in {base}: {failure.strerror}; "
                "set MYLLM_RUNTIME_DIR to a writable directory with a short path"
            ) from failure
        self._made = 0

    def new_socket(self) -> Path:
        """A path that no socket of this process has had before."""
        self._made += 1
        return self.path / f"{self._made}.sock"

    def remove(self) -> None:
        """Remove the directory with everything in it."""
        shutil.rmtree(self.path, ignore_errors=True)


def _default_parent() -> Path:
    """`$XDG_RUNTIME_DIR` if it is a directory of ours, else the temporary directory."""
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
