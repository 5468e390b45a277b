"""The error for a file or folder that the system does not let us read."""

from __future__ import annotations

import errno
from pathlib import Path

from myllm.errors import InvalidModel


def unreadable(path: Path | str, failure: OSError) -> InvalidModel:
    """The error to raise: the system's reason, and what to do where it is the permissions."""
    advice = ""
    if failure.errno in (errno.EACCES, errno.EPERM):
        advice = "; let the user who runs MyLLM read it, with chmod or chown"
    return InvalidModel(f"{path} cannot be read: {failure.strerror or failure}{advice}")
