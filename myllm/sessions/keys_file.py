"""The file in which earlier versions kept API keys, which `myllm key import` reads.

It has a line `name:sha256-of-key` for each key, and comments (`#`) and blank lines.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from myllm.errors import InvalidKeysFile

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH: Final = re.compile(r"[0-9a-fA-F]{64}")


def read(path: Path) -> dict[str, bytes]:
    """Return the SHA-256 of each key in a file, by its name; raises InvalidKeysFile."""
    try:
        text = path.read_text("utf-8", errors="surrogateescape")
    except FileNotFoundError:
        raise InvalidKeysFile(f"the keys file {path} does not exist") from None
    except OSError as failure:
        raise InvalidKeysFile(f"cannot read the keys file {path}: {failure.strerror}") from None
    return parse(text, path)


def parse(text: str, path: Path) -> dict[str, bytes]:
    """Return the hashes by name; raises InvalidKeysFile that names `path` and the line's number.

    The error never shows the line: it may contain a key instead of its hash.
    """
    hashes: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, _, hashed = (part.strip() for part in line.partition(":"))
        if not (_NAME.fullmatch(name) and _HASH.fullmatch(hashed)):
            raise InvalidKeysFile(
                f"line {number} of the keys file {path} is not 'name:sha256-of-key'"
            )
        if name in hashes:
            raise InvalidKeysFile(f"line {number} of the keys file {path} repeats a name")
        hashes[name] = bytes.fromhex(hashed)
    return hashes
