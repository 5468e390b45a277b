"""Ask llama-fit-params what a model will take; it reads only the header, in under 0.1 s."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from myllm.engine.process import clean_environment
from myllm.errors import EngineError

_LINE = re.compile(r"^(\S+) (\d+) (\d+) (\d+) *$", re.MULTILINE)
_HOST = "Host"


@dataclass(frozen=True)
class DeviceNeed:
    """MiB on one device: weights, keys and values of all slots, and buffers to compute in.

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
    """What `llama-server` with these arguments would take, per device.

    `arguments` are those that decide on memory; the tool knows no others than llama-server's
    for model, sizes and devices. It leaves out the process itself, a projector, a prompt cache
    and the room for an embedding's outputs. Raises EngineError with the tool's own words; when
    this returns or raises, the tool has ended.
    """
    # Weights that would be repacked for the CPU are missing from its sum otherwise.
    command = [str(tool), *arguments, "--no-repack", "--fit-print", "on"]
    code, printed, said = await _run(command, timeout_s)
    needs = tuple(
        DeviceNeed(name, int(model), int(context), int(compute))
        for name, model, context, compute in _LINE.findall(printed)
    )
    if code != 0:
        raise EngineError(f"{tool.name} ended with {code}: {_cause(said)}")
    if not needs or needs[-1].name != _HOST:
        raise EngineError(f"{tool.name} printed no memory figures: {printed.strip()[:200]!r}")
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
            # NVML's order of the GPUs, by which the rest of MyLLM names them.
            env=clean_environment() | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
        )
    except OSError as failure:
        raise EngineError(f"{command[0]} cannot be run: {failure.strerror}") from failure
    try:
        printed, said = await asyncio.wait_for(process.communicate(), timeout_s)
    except TimeoutError as hang:
        raise EngineError(f"{command[0]} gave no answer in {timeout_s:g} s") from hang
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, printed.decode(errors="replace"), said.decode(errors="replace")


def _cause(said: str) -> str:
    """The lines that llama.cpp marks as errors, else its last one.

    Marked lines are often lost when it aborts; the exception's own words come after them.
    """
    lines = [line.strip().removeprefix("what():").strip() for line in said.splitlines()]
    lines = [line for line in lines if line]
    errors = [line.split(" E ", 1)[1] for line in lines if " E " in line]
    return " / ".join(errors[-3:] or lines[-1:])[:300] or "it said nothing"
