"""A llama-server that can be run, and the accelerators that it lists."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from myllm.errors import EngineMissing

Origin = Literal["setting", "cache", "path"]

_NOT_A_GPU = {"CPU", "RPC", "BLAS"}


@dataclass(frozen=True)
class Device:
    """One accelerator, with sizes in MiB, as `llama-server --list-devices` prints it."""

    name: str
    description: str
    total_mb: int
    free_mb: int


@dataclass(frozen=True)
class Engine:
    """A llama-server that can be run, and how it was built."""

    server: Path
    origin: Origin
    version: str
    build: int
    commit: str
    backends: tuple[str, ...]

    def tool(self, name: str) -> Path:
        """The program `name` next to the server. Raises EngineMissing if it is missing."""
        path = self.server.with_name(name)
        if not (path.is_file() and os.access(path, os.X_OK)):
            raise EngineMissing(
                f"{name} is not next to {self.server}; compile a whole engine: myllm engine build"
            )
        return path

    @property
    def identity(self) -> str:
        """Distinguishes builds, even two that report the same version."""
        try:
            file = self.server.stat()
            binary = f" {file.st_size} {file.st_mtime_ns}"
        except OSError:  # starting it raises a clear error
            binary = ""
        return f"{self.version} {self.commit}{binary}"

    @property
    def has_gpu(self) -> bool:
        """Whether it can compute on a GPU."""
        return any(backend not in _NOT_A_GPU for backend in self.backends)
