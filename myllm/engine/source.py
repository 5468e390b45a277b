"""Which llama.cpp tree is compiled.

In this order: the checkout that MYLLM_LLAMA_SOURCE names, a checkout that the user put in
`vendor/llama.cpp/src`, the pinned sdist. A tree that MyLLM unpacked there has a marker file with
the pin's checksum, which distinguishes it from the user's own.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from myllm.engine.pinned_source import Pin, load_pin, pinned_tree, vendored_tree
from myllm.engine.unpack import MARKER, is_needed
from myllm.errors import BuildFailed
from myllm.settings import Settings

_GIT_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Source:
    """A tree to compile; `pin` is None for the user's own, whose `commit` may be empty."""

    tree: Path
    id: str
    commit: str
    pin: Pin | None = None


def find_source(settings: Settings) -> Source:
    """The tree that would be compiled now; the pinned one may still have to be fetched.

    Takes milliseconds and writes nothing. Raises BuildFailed if a folder that the user named does
    not contain llama.cpp.
    """
    if settings.llama_source is not None:
        return _checkout(settings.llama_source.absolute(), "MYLLM_LLAMA_SOURCE")
    tree = vendored_tree()
    if tree is not None and _is_users_own(tree):
        return _checkout(tree, "vendor/llama.cpp/src")
    pin = load_pin()
    return Source(pinned_tree(settings.cache_dir, pin), pin.source_id, pin.commit, pin)


def _is_users_own(tree: Path) -> bool:
    # A submodule that was never initialised is an empty folder.
    return tree.is_dir() and not (tree / MARKER).exists() and any(tree.iterdir())


def _checkout(tree: Path, named_by: str) -> Source:
    if not (tree / "CMakeLists.txt").is_file():
        raise BuildFailed(
            f"{tree} ({named_by}) is not a llama.cpp checkout: it has no CMakeLists.txt"
        )
    commit = _git(tree, "rev-parse", "HEAD").strip() if (tree / ".git").exists() else ""
    if not commit:
        return Source(tree, f"tree-{_digest_of_files(tree, _all_files(tree))}", "")
    changed = _git(tree, "status", "--porcelain", "-z", "--untracked-files=all")
    if not changed:
        return Source(tree, f"git-{commit[:16]}", commit[:9])
    names = sorted(entry[3:] for entry in changed.split("\0") if len(entry) > 3)
    return Source(tree, f"git-{commit[:16]}-{_digest_of_files(tree, names)}", commit[:9])


def _git(tree: Path, *arguments: str) -> str:
    """Git's output about `tree`; empty if git is missing or refuses."""
    command = ["git", "--no-optional-locks", "-C", str(tree), *arguments]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_GIT_TIMEOUT_S
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _all_files(tree: Path) -> list[str]:
    found: list[str] = []
    for folder, folders, files in os.walk(tree):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "build"]
        found += [os.path.relpath(os.path.join(folder, name), tree) for name in files]
    return sorted(name for name in found if is_needed(name) or "/" not in name)


def _digest_of_files(tree: Path, names: list[str]) -> str:
    """A hash of path, size and time of change; reading the contents would take too long."""
    digest = hashlib.sha256(str(tree).encode())
    for name in names:
        try:
            facts = (tree / name).stat()
            digest.update(f"{name}\0{facts.st_size}\0{facts.st_mtime_ns}\0".encode())
        except FileNotFoundError:
            digest.update(f"{name}\0gone\0".encode())
    return digest.hexdigest()[:16]
