"""Compile llama.cpp into the cache.

The result is stored under a key made of source, flags and compiler. Of two builds with one key,
the second waits. An interrupted build continues where it stopped, because its tree is kept until
it succeeds.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
from filelock import Timeout

from myllm.cgroups import memory_limit
from myllm.cpus import usable_cpus
from myllm.engine.build_errors import failure_of, shortage_of_space, unusable_cache
from myllm.engine.build_options import (
    TARGETS,
    BuildOptions,
    build_key,
    cmake_flags,
    needed_features,
    wants_cuda,
)
from myllm.engine.cache import Manifest, engine_dir, mark_preferred, read_engine, store
from myllm.engine.engine import Engine
from myllm.engine.fetch import provide_tree
from myllm.engine.locks import hold_lock
from myllm.engine.probe import Identity, identify
from myllm.engine.process import run_logged
from myllm.engine.progress import Progress, ProgressListener, no_progress
from myllm.engine.source import Source, find_source
from myllm.engine.toolchain import Toolchain, provide_toolchain
from myllm.errors import BuildFailed, EngineError
from myllm.settings import Settings

__all__ = ["BuildOptions", "build_engine"]

_LOCK_TIMEOUT_S = 3 * 3600.0
_LOG_TAIL_BYTES = 8192
_NINJA_STEP = re.compile(r"^\[(\d+)/(\d+)\] ?(.*)")
_BACKEND = re.compile(r"^-- Including (\S+) backend")
_CMAKE_PLACE = re.compile(r"^CMAKE_(HOME_DIRECTORY|CACHEFILE_DIR):INTERNAL=(.*)$", re.MULTILINE)
_VERSION = re.compile(r"^-- llama\.cpp version: (\S+)")
# The most memory that one compiler process takes; more of them would make a small machine swap.
_JOB_BYTES = 1.5 * 2**30


def build_engine(
    settings: Settings,
    options: BuildOptions | None = None,
    progress: ProgressListener | None = None,
) -> Engine:
    """The engine with these options, compiled unless it is in the cache. The next start uses it,
    unless it fails the self-check (see ensure.py).

    Raises BuildFailed, which says what to install or free, or has the compiler's last lines and
    the log's path. After Ctrl+C or a failure the next call resumes.
    """
    options, progress = options or BuildOptions(), progress or no_progress
    cache_dir = settings.cache_dir
    source = find_source(settings)
    cuda = wants_cuda(options)
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        tools = provide_toolchain(cache_dir, cuda, progress)
        flags = cmake_flags(source, tools, options)
        key = build_key(source, flags, tools, options.portable)
        folder = engine_dir(cache_dir, key)
        lock, log = cache_dir / "locks" / f"{key}.lock", cache_dir / "build" / f"{key}.log"
        work = "compiling the engine"
        with hold_lock(lock, work, progress, _LOCK_TIMEOUT_S, partial(_steps_in, log)):
            known = read_engine(folder)
            if known is None:
                shortage = shortage_of_space(cache_dir, cuda)
                if shortage:
                    raise BuildFailed(shortage)
                provide_tree(source, cache_dir, progress)
                _Build(cache_dir, key, source, tools, flags, progress).run(options)
                known = read_engine(folder)
    except Timeout as failure:
        raise BuildFailed(
            f"Another process holds {failure.lock_file} and does not give way; end it and try again"
        ) from failure
    except OSError as failure:
        raise BuildFailed(unusable_cache(cache_dir, failure)) from failure
    if known is None:
        raise BuildFailed(f"{folder} was changed while it was written; try again")
    mark_preferred(folder)
    return known[1]


def _steps_in(log: Path) -> tuple[int, int]:
    """Ninja's progress in the log of a build: steps done, and all steps; zeros at first."""
    try:
        with log.open("rb") as reading:
            reading.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
            lines = reading.read().decode(errors="replace").splitlines()
    except OSError:
        return 0, 0
    steps = [match for line in lines if (match := _NINJA_STEP.match(line))]
    return (int(steps[-1][1]), int(steps[-1][2])) if steps else (0, 0)


class _Build:
    """One build under its lock: configure, compile, install."""

    def __init__(
        self,
        cache_dir: Path,
        key: str,
        source: Source,
        tools: Toolchain,
        flags: list[str],
        progress: ProgressListener,
    ) -> None:
        self._tree = cache_dir / "build" / key
        self._log = cache_dir / "build" / f"{key}.log"
        self._folder = engine_dir(cache_dir, key)
        self._source, self._tools, self._flags = source, tools, flags
        self._progress = progress
        self._lines: list[str] = []
        self._backends: list[str] = []
        self._version = "unknown"

    def run(self, options: BuildOptions) -> None:
        """Install the finished engine in its folder and delete the build tree."""
        if not self._can_resume():
            shutil.rmtree(self._tree)
        self._tree.mkdir(parents=True, exist_ok=True)
        self._log.unlink(missing_ok=True)
        self._progress(Progress("configure", detail=str(self._source.tree)))
        cmake = [str(self._tools.cmake), "-S", str(self._source.tree), "-B", str(self._tree)]
        self._step("Configuring", [*cmake, "-G", "Ninja", *self._flags], self._read_cmake_line)
        ninja = [str(self._tools.ninja), "-C", str(self._tree)]
        ninja += ["-j", str(options.jobs or _default_jobs()), *TARGETS]
        self._step("Compiling", ninja, self._read_ninja_line)
        self._progress(Progress("install"))
        self._install(options)
        shutil.rmtree(self._tree, ignore_errors=True)

    def _can_resume(self) -> bool:
        """Whether cmake can continue in this tree: not after the tree or the source was moved."""
        try:
            cache = (self._tree / "CMakeCache.txt").read_text(errors="replace")
        except FileNotFoundError:
            return True
        known = {name: Path(place).resolve() for name, place in _CMAKE_PLACE.findall(cache)}
        here = {"HOME_DIRECTORY": self._source.tree, "CACHEFILE_DIR": self._tree}
        return known == {name: place.resolve() for name, place in here.items()}

    def _step(self, what: str, command: list[str], on_line: Callable[[str], None]) -> None:
        self._lines = []
        # The tree may be inside a git checkout of something other than llama.cpp.
        ceiling = str(self._source.tree.parent)
        environment = {**os.environ, "NINJA_STATUS": "[%f/%t] ", "GIT_CEILING_DIRECTORIES": ceiling}
        environment.pop("CMAKE_GENERATOR", None)
        code = run_logged(command, self._log, on_line, environment)
        if code != 0:
            raise BuildFailed(failure_of(what, code, self._lines, self._log))

    def _read_cmake_line(self, line: str) -> None:
        self._lines.append(line)
        if match := _BACKEND.match(line):
            self._backends.append(match[1])
        elif match := _VERSION.match(line):
            self._version = match[1]

    def _read_ninja_line(self, line: str) -> None:
        self._lines.append(line)
        if match := _NINJA_STEP.match(line):
            self._progress(Progress("compile", int(match[1]), int(match[2]), match[3]))

    def _install(self, options: BuildOptions) -> None:
        built = self._tree / "bin"
        known = self._identify(built / "llama-server")
        manifest = Manifest(
            source=self._source.id,
            version=known.version,
            build=known.build,
            commit=known.commit,
            backends=self._backends or list(known.backends),
            portable=options.portable,
            features=needed_features(options),
            compiler=self._tools.identity,
            flags=self._flags,
        )
        store(self._folder, built, TARGETS, manifest)

    def _identify(self, server: Path) -> Identity:
        """Run the new server; one for CUDA may be compiled on a machine without a GPU driver."""
        try:
            return identify(server)
        except EngineError as failure:
            pin = self._source.pin
            if self._tools.nvcc is not None and "libcuda.so" in failure.detail:
                number, commit = (pin.build, pin.commit) if pin else (0, self._source.commit)
                return Identity(self._version, number, commit, ())
            raise BuildFailed(
                f"The compiled llama-server does not run: {failure.detail}"
            ) from failure


def _default_jobs() -> int:
    """One compiler per usable CPU, as far as memory suffices."""
    limit, free = memory_limit(), psutil.virtual_memory().available
    if limit is not None:
        free = min(free, limit.free)
    return max(1, min(usable_cpus(), int(free / _JOB_BYTES)))
