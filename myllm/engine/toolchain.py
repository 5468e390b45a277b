"""The tools that compile llama.cpp: a C++ compiler, cmake, ninja, and optionally CUDA."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from myllm.engine.hardware import nvidia_driver_is_there
from myllm.engine.locks import hold_lock
from myllm.engine.process import run_logged
from myllm.engine.progress import Progress, ProgressListener
from myllm.errors import BuildFailed

CMAKE_MINIMUM = (3, 20)  # tuning.cmake uses cmake_path
INSTALL_COMPILER = (
    "install one: 'apt install g++' (Debian, Ubuntu), 'dnf install gcc-c++' (Fedora), "
    "'xcode-select --install' (macOS)"
)
INSTALL_CUDA = "install the CUDA toolkit, or set CUDA_HOME to where it is"
_CUDA_HOME = "/usr/local/cuda"
_PROBE_TIMEOUT_S = 15.0
_LOCK_TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Toolchain:
    """The programs of a build; `identity` changes when a compiler does."""

    cc: Path
    cxx: Path
    cmake: Path
    ninja: Path
    nvcc: Path | None
    identity: str


def find_compilers() -> tuple[Path, Path] | None:
    """The C and the C++ compiler: those that CC and CXX name, else the usual ones on PATH."""
    cc = _first_on_path(os.environ.get("CC"), "cc", "gcc", "clang")
    cxx = _first_on_path(os.environ.get("CXX"), "c++", "g++", "clang++")
    return (cc, cxx) if cc and cxx else None


def find_nvcc() -> Path | None:
    """CUDA's compiler: on PATH, below CUDA_HOME, or where its installer puts it."""
    homes = (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), _CUDA_HOME)
    places = [on_path("nvcc"), *(Path(home, "bin", "nvcc") for home in homes if home)]
    return next((place for place in places if place and os.access(place, os.X_OK)), None)


def nvidia_gpus() -> list[str]:
    """The names of the NVIDIA GPUs, by the driver's own tool; empty if there are none."""
    tool = on_path("nvidia-smi")
    if tool is None or not nvidia_driver_is_there():
        return []
    lines = first_lines([str(tool), "--query-gpu=name", "--format=csv,noheader"])
    return [line.strip() for line in lines if line.strip()]


def find_build_tool(name: str, cache_dir: Path) -> Path | None:
    """cmake or ninja: on PATH, next to our Python, or fetched earlier. cmake must be recent."""
    tools = cache_dir / "tools"
    places = [
        on_path(name),
        Path(sys.executable).with_name(name),
        tools / name / "data" / "bin" / name,
        tools / "bin" / name,
    ]
    for place in places:
        if place is None or not os.access(place, os.X_OK):
            continue
        version = tool_version(place)
        if version is not None and (name != "cmake" or version >= CMAKE_MINIMUM):
            return place
    return None


def tool_version(tool: Path) -> tuple[int, ...] | None:
    """The first version number that `tool --version` prints; None if it does not run."""
    match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", " ".join(first_lines([str(tool), "--version"])))
    return tuple(int(part) for part in match.groups("0")) if match else None


def provide_toolchain(cache_dir: Path, cuda: bool, progress: ProgressListener) -> Toolchain:
    """Everything a build needs; fetches cmake and ninja from the package index if necessary.

    Raises BuildFailed, saying what to install.
    """
    compilers = find_compilers()
    if compilers is None:
        raise BuildFailed(
            f"There is no C++ compiler to compile llama-server with; {INSTALL_COMPILER}"
        )
    nvcc = find_nvcc() if cuda else None
    if cuda and nvcc is None:
        raise BuildFailed(f"CUDA was asked for, but there is no nvcc; {INSTALL_CUDA}")
    cmake, ninja = find_build_tool("cmake", cache_dir), find_build_tool("ninja", cache_dir)
    if cmake is None or ninja is None:
        _fetch_build_tools(cache_dir, progress)
        cmake, ninja = find_build_tool("cmake", cache_dir), find_build_tool("ninja", cache_dir)
    if cmake is None or ninja is None:
        raise BuildFailed(
            "cmake or ninja does not run; install them: apt install cmake ninja-build"
        )
    versions = [
        f"{path} {' '.join(first_lines([str(path), '--version'])[:1])}" for path in compilers
    ]
    if nvcc is not None:
        versions.append(f"{nvcc} {' '.join(first_lines([str(nvcc), '--version'])[-1:])}")
    return Toolchain(*compilers, cmake, ninja, nvcc, "; ".join(versions))


def _fetch_build_tools(cache_dir: Path, progress: ProgressListener) -> None:
    progress(Progress("tools", detail="cmake and ninja from the package index"))
    (cache_dir / "locks").mkdir(parents=True, exist_ok=True)  # pip writes its log there
    log = cache_dir / "locks" / "tools.log"
    with (
        hold_lock(
            cache_dir / "locks" / "tools.lock",
            "fetching cmake and ninja",
            progress,
            _LOCK_TIMEOUT_S,
        ),
        tempfile.TemporaryDirectory(prefix=".tools-", dir=cache_dir) as aside,
    ):
        new = Path(aside, "new")
        command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
        command += ["--no-input", "--progress-bar", "off", "--target", str(new)]
        command += ["cmake", "ninja"]
        if run_logged(command, log, lambda _line: None) != 0:
            raise BuildFailed(
                "cmake and ninja are not here, and pip could not fetch them "
                f"(log: {log}); install them: apt install cmake ninja-build"
            )
        tools = cache_dir / "tools"
        if tools.exists():
            tools.rename(Path(aside, "old"))
        new.rename(tools)


def first_lines(command: list[str]) -> list[str]:
    """The lines that `command` prints; empty if it fails or hangs."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
            stdin=subprocess.DEVNULL,
            timeout=_PROBE_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()


def on_path(name: str) -> Path | None:
    """The program `name` on PATH."""
    found = shutil.which(name)
    return Path(found) if found else None


def _first_on_path(*names: str | None) -> Path | None:
    return next((path for name in names if name and (path := on_path(name))), None)
