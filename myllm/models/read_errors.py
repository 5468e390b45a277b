"""The words of errors about model files that cannot be read."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Final

from myllm.errors import InvalidModel

PULL_AGAIN: Final = "pull it again with 'myllm pull --force'"


def unreadable(path: Path | str, failure: OSError) -> InvalidModel:
    """Return the error to raise: the system's reason, and what to do about missing permissions."""
    advice = ""
    if failure.errno in (errno.EACCES, errno.EPERM):
        advice = "; let the user who runs MyLLM read it, with chmod or chown"
    return InvalidModel(f"{path} cannot be read: {failure.strerror or failure}{advice}")
