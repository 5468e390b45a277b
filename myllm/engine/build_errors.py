"""Why a build cannot start or has failed, and what to do about it."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from myllm.engine.toolchain import INSTALL_CUDA

# For the sdist, its tree, the build tree and the result; CUDA has many large kernels.
SPACE_CPU_MB = 500
SPACE_CUDA_MB = 4000
_FULL_BYTES = 4 * 2**20
_MAX_LINES = 15
_LONGEST_LINE = 300


def shortage_of_space(cache_dir: Path, cuda: bool) -> str | None:
    """A sentence if `cache_dir` has too little space for a build, else None."""
    needed = SPACE_CUDA_MB if cuda else SPACE_CPU_MB
    free = shutil.disk_usage(cache_dir).free // 2**20
    if free >= needed:
        return None
    return (
        f"Compiling the engine needs about {needed} MB in {cache_dir}, and {free} MB are free; "
        "free some space or let MYLLM_CACHE_DIR name another folder"
    )


def unusable_cache(cache_dir: Path, failure: OSError) -> str:
    """What to do when `cache_dir` cannot be written."""
    full = failure.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "free some space" if full else "make it a writable folder"
    return (
        f"The engine could not be compiled in {cache_dir}: {failure.strerror or failure}; "
        f"{remedy}, or let MYLLM_CACHE_DIR name another one"
    )


def failure_of(what: str, code: int, lines: list[str], log: Path) -> str:
    """The compiler's last lines, what may help, and the path of the whole log."""
    relevant = _relevant_lines(lines)
    text = "\n".join(f"    {line[:_LONGEST_LINE]}" for line in relevant)
    everything = "\n".join(lines)
    # A compiler that runs out of disk space may die without a message.
    full = shutil.disk_usage(log.parent).free < _FULL_BYTES
    if full or "No space left on device" in everything:
        advice = "The disk is full: free some space or let MYLLM_CACHE_DIR name another folder. "
    elif "Killed signal" in everything or "out of memory" in everything:
        advice = "Memory ran out: try again with --jobs 1. "
    elif "CUDA" in everything and "CMake Error" in everything:
        advice = f"If CUDA's toolkit is incomplete, {INSTALL_CUDA}, or use --backend cpu. "
    else:
        advice = ""
    return f"{what} llama.cpp failed with exit code {code}:\n{text}\n{advice}The whole log: {log}"


def _relevant_lines(lines: list[str]) -> list[str]:
    """The lines from the first failure on, without ninja's steps and repeated command lines."""
    begin = next((i for i, line in enumerate(lines) if line.startswith("FAILED:")), None)
    if begin is None:
        begin = next((i for i, line in enumerate(lines) if line.startswith("CMake Error")), None)
    if begin is None:
        return [line for line in lines if line.strip()][-_MAX_LINES:]
    command_at = begin + 1 if lines[begin].startswith("FAILED:") else -1
    kept = [
        line
        for i, line in enumerate(lines[begin:], begin)
        if line.strip() and i != command_at and not line.startswith("[")
    ]
    return kept[:_MAX_LINES]
