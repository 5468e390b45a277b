"""The known speeds at which models read prompts; kept over restarts.

    (unknown) ──> measured     compared on a calm machine: final
        │ ▲
        │ └───── busy          compared while the machine was busy: to be repeated
        └──────> slow          too slow to compare within seconds: learns from real prompts

A key stands for everything that the speed depends on (`InstanceSpec.speed_key`).
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import orjson
import structlog

from myllm.supervisor.batch_sizes import best_batch, sizes_to_compare
from myllm.supervisor.spec import InstanceSpec

Status = Literal["measured", "busy", "slow"]

_log = structlog.get_logger(__name__)
_MAX_REMEMBERED = 1000
# A prompt that is longer than a batch size by more than this is not read at that size's speed.
_ABOUT_AS_LONG = 1.25
# A prompt of this many whole batches is read at their speed, whatever the size of its last one.
_WHOLE_BATCHES = 2
# Parameters x tokens that one core reads per second, at least: two cores of a cloud machine read
# 100 tokens/s with 1.1 billion parameters in Q4_K_M.
_WORK_PER_CORE = 50e9
# Beyond this, a model is so small that its parameters no longer determine the speed.
_MAX_GUESSED = 20_000.0


@dataclass(frozen=True)
class Known:
    """Tokens per second by batch size, each the best that was measured, since other programs can
    only slow an engine down."""

    status: Status
    tokens_per_s: dict[int, float]


class PromptSpeeds:
    """The speeds by key, kept in `file`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known = _read(file)

    def batch(self, key: str, start: int) -> int:
        """The batch size for the next start: `start`, the largest, until it was compared with
        smaller sizes."""
        known = self._known.get(key)
        if known is None or known.status == "busy" or start not in known.tokens_per_s:
            return start
        return best_batch(known.tokens_per_s)

    def best(self, key: str) -> float | None:
        """Tokens per second in the best batch size, or None when nothing is known."""
        known = self._known.get(key)
        return max(known.tokens_per_s.values(), default=None) if known else None

    def expected(self, spec: InstanceSpec, cores: int) -> float:
        """Tokens of a prompt that an engine reads per second: measured, or else a cautious guess
        from its cores, even if it has a GPU."""
        return self.best(spec.speed_key) or guessed_speed(spec.model.header.parameter_count, cores)

    def wants_comparison(self, key: str) -> bool:
        """Whether a comparison of sizes is still to be made."""
        known = self._known.get(key)
        return known is None or known.status == "busy"

    def learns(self, key: str) -> bool:
        """Whether real prompts are measured."""
        known = self._known.get(key)
        return known is not None and known.status == "slow"

    def compared(self, key: str, known: Known) -> None:
        """Record a comparison; the figures of a busy machine add to those it showed before."""
        before = self._known.pop(key, None)  # so that the latest is last
        if known.status != "measured" and before is not None:
            speeds = dict(before.tokens_per_s)
            for size, speed in known.tokens_per_s.items():
                speeds[size] = max(speed, speeds.get(size, 0.0))
            known = Known(known.status, speeds)
        self._known[key] = known

    def learn(self, key: str, batch: int, tokens: int, seconds: float) -> None:
        """Note that `tokens` of a real prompt took `seconds`, in batches of `batch`, while neither
        this engine nor the machine did anything else."""
        size = _size_read(batch, tokens)
        if not self.learns(key) or size is None or seconds <= 0:
            return
        speeds = self._known[key].tokens_per_s
        speeds[size] = max(tokens / seconds, speeds.get(size, 0.0))

    def save(self) -> None:
        """Replace the file; a failure is only logged, because the file is a hint."""
        aside = self._file.with_suffix(".new")
        latest = dict(list(self._known.items())[-_MAX_REMEMBERED:])
        content = {key: asdict(known) for key, known in latest.items()}
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS))
            os.replace(aside, self._file)
        except OSError as failure:
            _log.warning("prompt speeds not saved", cause=str(failure))


def guessed_speed(parameters: int, cores: int) -> float:
    """A cautious guess of the tokens per second that the cores read with an unmeasured model."""
    return min(_WORK_PER_CORE * cores / max(parameters, 1), _MAX_GUESSED)


def _size_read(batch: int, tokens: int) -> int | None:
    """The batch size whose speed a prompt of `tokens` shows, or None."""
    if tokens >= _WHOLE_BATCHES * batch:
        return batch
    size = max((each for each in sizes_to_compare(batch) if each <= tokens), default=None)
    return size if size is not None and tokens <= _ABOUT_AS_LONG * size else None


def _read(file: Path) -> dict[str, Known]:
    try:
        content = orjson.loads(file.read_bytes())
        return {str(key): _known(entry) for key, entry in content.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as failure:
        _log.warning("prompt speeds not read", file=str(file), cause=str(failure))
        return {}


def _known(entry: dict[str, dict[str, float]]) -> Known:
    """Raises ValueError, TypeError, AttributeError or KeyError for an invalid entry."""
    speeds = {int(size): float(speed) for size, speed in entry["tokens_per_s"].items()}
    if any(size <= 0 or not speed > 0 for size, speed in speeds.items()):
        raise ValueError("an invalid speed")
    status = str(entry["status"])
    if status not in ("measured", "busy", "slow"):
        raise ValueError(f"unknown status {status}")
    return Known(status, speeds)  # type: ignore[arg-type]
