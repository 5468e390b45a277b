"""Files and folders in the model folder that look like models but cannot be used as such."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Final

from myllm.models.model import PART, as_unicode
from myllm.models.registry import is_model_name

# Every ext4 file system has it at its root, which a container's model folder often is.
_NOT_OURS: Final = frozenset({"lost+found"})
_NAME_RULE: Final = "letters, digits, '.', '_' and '-', the first a letter or digit"


@dataclass(frozen=True)
class UnusedEntry:
    """A file or folder that is not used. `problem` is the reason, and what to do about it.

    Both are valid Unicode even if the file's name is not.
    """

    path: str
    problem: str


def _unused_entry(path: Path, problem: str) -> UnusedEntry:
    return UnusedEntry(as_unicode(str(path)), as_unicode(problem))


def unused_entries(models_dir: Path) -> list[UnusedEntry]:
    """The unused entries of `models_dir`, by name: loose GGUF files (the parts of a split one
    together), folders whose name is not allowed for a model, and links that lead nowhere.

    Hidden entries and other kinds of files do not count. A missing or unreadable folder has none.
    """
    try:
        names = sorted(os.listdir(models_dir))
    except OSError:
        return []
    found: dict[str, UnusedEntry] = {}
    for name in names:
        if name.startswith(".") or name in _NOT_OURS:
            continue
        path = models_dir / name
        if name.lower().endswith(".gguf") and not path.is_dir():
            found.setdefault(_whole(name), _loose(path))
        elif not path.exists():
            if path.is_symlink():
                found[name] = _unused_entry(path, _leads_nowhere(path))
        elif path.is_dir() and not is_model_name(name):
            found[name] = _unused_entry(path, _misnamed(path))
    return list(found.values())


def _whole(file: str) -> str:
    """The name that all parts of a split model share."""
    part = PART.fullmatch(file)
    return f"{part['stem']}-of-{part['count']}" if part else file


def _loose(path: Path) -> UnusedEntry:
    if path.name.lower().startswith("mmproj"):
        return _unused_entry(
            path, f"a projector belongs next to its model's GGUF; {_try('mv', path)} MODEL/"
        )
    part = PART.fullmatch(path.name)
    folder = _unused(path.with_name(_suggested(part["stem"] if part else path.name[:-5])))
    files = quote(str(path))
    if part:  # the shell's pattern for all parts stays outside the quotes
        start = quote(str(path.with_name(part["stem"])))
        files = f"{start}-*-of-{part['count']}{path.suffix}"
    advice = f"{_try('mkdir', folder)} && mv {files} {quote(str(folder))}/"
    return _unused_entry(path, f"a model needs a folder of its own; {advice}")


def _misnamed(path: Path) -> str:
    better = _unused(path.with_name(_suggested(path.name)))
    return f"no model can have this name ({_NAME_RULE}); {_try('mv', path, better)}"


def _leads_nowhere(path: Path) -> str:
    return (
        f"a link to {os.readlink(path)}, which is not there; bring that back, or {_do('rm', path)}"
    )


def _suggested(name: str) -> str:
    """The closest name that is allowed for a model."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:128] or "model"


def _unused(path: Path) -> Path:
    """`path`, with a number appended if it exists."""
    number, free = 1, path
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def _do(program: str, *paths: Path) -> str:
    return " ".join([program, *(quote(str(path)) for path in paths)])


def _try(program: str, *paths: Path) -> str:
    return f"try: {_do(program, *paths)}"
