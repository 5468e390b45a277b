"""How many tokens llama-server reads at once: 0.4 seconds' worth at most.

A cancelled request frees its slot only between batches: llama-server notices at the end of one
batch that nobody listens, and stops at the end of the next, so two of them must pass within a
second. What a model's prompt speed was is remembered over restarts, and the next load takes
its batch size from it; the first one goes by a guess.
"""

from __future__ import annotations

import os
from pathlib import Path

import orjson
import structlog

TARGET_S = 0.4
CPU_START = 128
GPU_START = 2048
# Parameters x tokens that one core reads in a second, at the least: 1.1 billion parameters in
# Q4_K_M were read at 100 tokens/s by two cores of a cloud machine.
_WORK_PER_CORE = 50e9
# Beyond this, a model is so small that other things than its parameters take the time.
_MOST_GUESSED = 20_000.0
SMALLEST = 16
LARGEST = 2048
# Shorter prompts measure the overhead, not the speed.
_LEAST_TOKENS = 64
# A new measurement moves the remembered speed by this much, so that one slow moment does little.
_WEIGHT = 0.3

_log = structlog.get_logger(__name__)


def batch_for(tokens_per_s: float, largest: int = LARGEST) -> int:
    """The batch size for a prompt speed: a power of two from SMALLEST to `largest`."""
    size = SMALLEST
    while size * 2 <= min(tokens_per_s * TARGET_S, largest):
        size *= 2
    return size


def guessed_speed(parameters: int, cores: int) -> float:
    """Tokens per second that the cores read of a model which was never measured, cautiously."""
    return min(_WORK_PER_CORE * cores / max(parameters, 1), _MOST_GUESSED)


def first_batch(parameters: int, cores: int, gpu: bool) -> int:
    """The batch size of a model whose speed was never measured; cautious for a large one."""
    if gpu:
        return GPU_START
    return batch_for(guessed_speed(parameters, cores), CPU_START)


class PromptSpeeds:
    """Measured prompt speeds in tokens per second, by a model's digest, kept in `file`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._speeds = _read(file)

    def get(self, digest: str) -> float | None:
        """The remembered speed, or None."""
        return self._speeds.get(digest)

    def measured(self, digest: str, tokens: int, seconds: float) -> None:
        """Take in that `tokens` of a prompt took `seconds`."""
        if tokens < _LEAST_TOKENS or seconds <= 0:
            return
        speed, before = tokens / seconds, self._speeds.get(digest)
        self._speeds[digest] = speed if before is None else before + _WEIGHT * (speed - before)

    def save(self) -> None:
        """Write the file, aside and renamed; failing to is logged, for it is only a hint."""
        aside = self._file.with_suffix(".new")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(orjson.dumps(self._speeds))
            os.replace(aside, self._file)
        except OSError as failure:
            _log.warning("prompt speeds not saved", cause=str(failure))


def _read(file: Path) -> dict[str, float]:
    try:
        content = orjson.loads(file.read_bytes())
        return {str(digest): float(speed) for digest, speed in content.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as failure:
        _log.warning("prompt speeds not read", file=str(file), cause=str(failure))
        return {}
