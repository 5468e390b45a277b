"""How much memory a model will take, by llama-fit-params, which reads its header in 0.1 s."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from myllm.engine.process import clean_environment
from myllm.errors import EngineError

_LINE = re.compile(r"^(\S+) (\d+) (\d+) (\d+) *$", re.MULTILINE)
_WORD = re.compile(r"[A-Za-z]")
_HOST = "Host"


@dataclass(frozen=True)
class DeviceNeed:
    """MiB on one device: weights, keys and values of all slots, and compute buffers.

    `name` is llama.cpp's own: `Host`, `CUDA0`, …
    """

    name: str
    model_mb: int
    context_mb: int
    compute_mb: int

    @property
    def total_mb(self) -> int:
        """All three together."""
        return self.model_mb + self.context_mb + self.compute_mb


async def fit_params(
    tool: Path, arguments: Sequence[str], timeout_s: float = 30
) -> tuple[DeviceNeed, ...]:
    """The memory that `llama-server` would take with these arguments, per device.

    `arguments` are those that affect memory; the tool only knows llama-server's arguments for
    model, sizes and devices. Its figures lack the process itself, a projector, a prompt cache and
    the buffers for an embedding's outputs. Raises EngineError with the tool's own words; when this
    returns or raises, the tool has ended.
    """
    # Otherwise the sum lacks weights that would be repacked for the CPU.
    command = [str(tool), *arguments, "--no-repack", "--fit-print", "on"]
    code, stdout, stderr = await _run(command, timeout_s)
    needs = tuple(
        DeviceNeed(name, int(model), int(context), int(compute))
        for name, model, context, compute in _LINE.findall(stdout)
    )
    if code != 0:
        raise EngineError(f"{tool.name} ended with {code}: {_cause(stderr)}")
    if not needs or needs[-1].name != _HOST:
        raise EngineError(f"{tool.name} printed no memory figures: {stdout.strip()[:200]!r}")
    return needs


async def _run(command: list[str], timeout_s: float) -> tuple[int, str, str]:
    """Exit code, output and error output of `command`."""
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            # The order of NVML, by which the rest of MyLLM names GPUs.
            env=clean_environment() | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
        )
    except OSError as failure:
        raise EngineError(f"{command[0]} cannot be run: {failure.strerror}") from failure
    try:
        stdout, stderr = await asyncio.wait_for(process.communicate(), timeout_s)
    except TimeoutError as hang:
        raise EngineError(f"{command[0]} gave no answer in {timeout_s:g} s") from hang
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, stdout.decode(errors="replace"), stderr.decode(errors="replace")


def _cause(stderr: str) -> str:
    """The lines that llama.cpp marks as errors, else its last one.

    Marked lines are often lost when it aborts; the exception's own words come after them.
    """
    lines = [line.strip().removeprefix("what():").strip() for line in stderr.splitlines()]
    lines = [line for line in lines if _WORD.search(line)]  # it may die behind a line's time
    errors = [line.split(" E ", 1)[1] for line in lines if " E " in line]
    return " / ".join(errors[-3:] or lines[-1:])[:300] or "it said nothing"
