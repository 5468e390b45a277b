"""The file in which earlier versions kept API keys, for `myllm key import`: `read`, then `parse`.

It has a line `name:sha256-of-key` for each key, and comments (`#`) and blank lines.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from myllm.errors import Conflict, InvalidKeysFile, InvalidRequest, NotFound
from myllm.sessions.keys import hash_of

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH: Final = re.compile(r"[0-9a-fA-F]{64}")


def read(path: Path) -> str:
    """Return the text of a keys file; raises InvalidKeysFile."""
    try:
        return path.read_text("utf-8", errors="surrogateescape")
    except FileNotFoundError:
        raise InvalidKeysFile(f"the keys file {path} does not exist") from None
    except OSError as failure:
        raise InvalidKeysFile(f"cannot read the keys file {path}: {failure.strerror}") from None


def parse(text: str, path: Path) -> dict[str, bytes]:
    """Return the hashes by name; raises InvalidKeysFile that names `path` and the line's number.

    The error never shows the line: it may contain a key instead of its hash.
    """
    hashes: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if _is_remark(line):
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


def added(text: str, path: Path, name: str, key: str) -> str:
    """Return `text` with a line for `key`; raises InvalidRequest or Conflict for its name."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            "a key's name is 1 to 64 characters of A-Z a-z 0-9 . _ - and begins with a letter "
            "or digit"
        )
    if name in parse(text, path):
        raise Conflict(f"{path} has a key '{name}'; remove it first with 'myllm key rm {name}'")
    separator = "" if not text or text.endswith("\n") else "\n"
    return f"{text}{separator}{name}:{hash_of(key).hex()}\n"


def removed(text: str, path: Path, name: str) -> str:
    """Return `text` without the line of `name`; raises NotFound when there is none."""
    if name not in parse(text, path):
        raise NotFound(f"{path} has no key '{name}'")
    lines = text.splitlines(keepends=True)
    return "".join(
        line for line in lines if _is_remark(line) or line.partition(":")[0].strip() != name
    )


def _is_remark(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")
