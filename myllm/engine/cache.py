"""The compiled engines in the user's cache directory.

engines/KEY/bin/            the programs
engines/KEY/engine.json     the manifest; the folder appears whole, by a rename
build/KEY/, build/KEY.log   the build tree, kept until the build succeeds, and its log
checks/                     results of the self-check, per engine and CPU
locks/, downloads/, src/, tools/, probes/
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from myllm.engine.engine import Engine
from myllm.engine.hardware import cpu_features, nvidia_driver_is_there

_MANIFEST = "engine.json"


@dataclass(frozen=True)
class Manifest:
    """How an engine was compiled. `features` are the CPU features it needs; empty if portable."""

    source: str
    version: str
    build: int
    commit: str
    backends: list[str]
    portable: bool
    features: list[str]
    compiler: str
    flags: list[str]

    def runs_here(self) -> bool:
        """Whether this machine has what the engine was compiled for; takes microseconds."""
        if self.portable:
            return True
        if "CUDA" in self.backends and not nvidia_driver_is_there():
            return False
        return cpu_features().issuperset(self.features)


def engine_dir(cache_dir: Path, key: str) -> Path:
    return cache_dir / "engines" / key


def read_engine(folder: Path) -> tuple[Manifest, Engine] | None:
    """The finished engine in `folder`; None if it is missing or incomplete."""
    try:
        manifest = Manifest(**json.loads((folder / _MANIFEST).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    server = folder / "bin" / "llama-server"
    if not os.access(server, os.X_OK):
        return None
    backends = tuple(manifest.backends)
    engine = Engine(server, "cache", manifest.version, manifest.build, manifest.commit, backends)
    return manifest, engine


def compiled_engines(cache_dir: Path, source_id: str) -> list[Engine]:
    """The engines of this source that run on this machine, the last one built or used first."""
    found: list[tuple[float, Engine]] = []
    for manifest_file in (cache_dir / "engines").glob(f"[!.]*/{_MANIFEST}"):
        known = read_engine(manifest_file.parent)
        if known and known[0].source == source_id and known[0].runs_here():
            found.append((manifest_file.stat().st_mtime, known[1]))
    return [engine for _, engine in sorted(found, key=lambda entry: entry[0], reverse=True)]


def mark_preferred(folder: Path) -> None:
    """Make the engine in `folder` the one that comes first in `compiled_engines`."""
    os.utime(folder / _MANIFEST)


def store(folder: Path, built: Path, targets: tuple[str, ...], manifest: Manifest) -> None:
    """Copy the programs and libraries in `built` to `folder`, which appears whole or not at all.

    Raises OSError, for example when the disk is full.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        new = aside / "new"
        (new / "bin").mkdir(parents=True)
        for path in built.iterdir():
            if path.name in targets or _is_library(path.name):
                shutil.copy2(path, new / "bin" / path.name, follow_symlinks=False)
        (new / _MANIFEST).write_text(json.dumps(asdict(manifest), indent=2))
        if folder.exists():
            folder.rename(aside / "old")
        new.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _is_library(name: str) -> bool:
    return ".so" in Path(name).suffixes or name.endswith(".dylib")
