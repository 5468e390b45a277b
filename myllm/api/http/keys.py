"""API keys: a file with one line `name:sha256-of-key` per key, comments and blank lines.

The keys themselves are not stored: the file's contents give access to nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path

import structlog

from myllm.errors import Conflict, InvalidKeysFile, InvalidRequest, NotFound

_log = structlog.get_logger(__name__)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH = re.compile(r"[0-9a-fA-F]{64}")
_OTHERS_READ = 0o004


class Keys:
    """The keys in a file. Raises InvalidKeysFile when the file cannot be used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hashes: dict[str, bytes] = {}
        self.reload()

    def reload(self) -> None:
        """Read the file again; if that raises InvalidKeysFile, the keys stay as they were."""
        self._hashes = parse(read(self._path), self._path)
        if self._path.stat().st_mode & _OTHERS_READ:
            _log.warning("every user can read the keys file; use chmod 600", file=str(self._path))

    def name_of(self, key: str) -> str | None:
        """Return the name of `key`, or None. Takes the same time for each key, right or wrong."""
        hashed, found = _hash(key), None
        for name, known in self._hashes.items():
            if hmac.compare_digest(hashed, known):
                found = name
        return found


def read(path: Path) -> str:
    """Return the text of a keys file; raises InvalidKeysFile that says what to do."""
    try:
        return path.read_text("utf-8", errors="surrogateescape")
    except FileNotFoundError:
        raise InvalidKeysFile(
            f"the keys file {path} does not exist; 'myllm key add NAME --file {path}' makes it"
        ) from None
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
                f"line {number} of the keys file {path} is not 'name:sha256-of-key'; "
                "'myllm key add NAME' writes such lines"
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
    return f"{text}{separator}{name}:{_hash(key).hex()}\n"


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


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
