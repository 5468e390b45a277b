"""The CPU and GPU features that an engine may need; cheap enough to read at each start."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

# The kernel also lists bugs, power states and virtualisation, which come and go with its version.
_X86 = "sse ssse avx fma f16c bmi amx popcnt abm aes pclmul vaes vpclmul gfni sha movbe adx xsave"
_X86_PREFIXES = tuple(_X86.split())
_FIRST_CPU_BYTES = 16384
_MODEL_KEYS = ("vendor_id", "cpu family", "model", "model name", "stepping", "CPU part")
_WIDEST_FIRST = {"amx": "AMX", "avx512": "AVX-512", "avx2": "AVX2", "avx": "AVX", "sve": "SVE"}


@functools.cache
def _first_cpu() -> dict[str, str]:
    """The kernel's description of the first CPU; empty if there is none."""
    try:
        with Path("/proc/cpuinfo").open() as file:
            lines = file.read(_FIRST_CPU_BYTES).partition("\n\n")[0].splitlines()
    except OSError:
        return {}
    facts = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in facts}


@functools.cache
def cpu_features() -> frozenset[str]:
    """The machine's architecture and its instruction sets, as the kernel names them."""
    machine, cpu = platform.machine(), _first_cpu()
    if not cpu:
        return frozenset({machine, platform.processor()})
    if "flags" in cpu:
        return frozenset({machine, *filter(_is_instruction_set, cpu["flags"].split())})
    return frozenset({machine, *cpu.get("Features", "").split()})


def cpu_identity() -> str:
    """The CPU's model and instruction sets; the same on all machines of a kind."""
    model = (_first_cpu().get(name, "") for name in _MODEL_KEYS)
    return " ".join([*model, *sorted(cpu_features())])


def widest_instruction_set(features: frozenset[str]) -> str:
    """The common name of the newest of `features` that llama.cpp has code for."""
    for prefix, name in _WIDEST_FIRST.items():
        if any(feature.startswith(prefix) for feature in features):
            return name
    return "an instruction set that this CPU lacks"


def _is_instruction_set(flag: str) -> bool:
    return flag.startswith(_X86_PREFIXES)


def nvidia_driver_is_there() -> bool:
    """Whether a program can open an NVIDIA GPU here; takes microseconds (`/dev/dxg`: WSL)."""
    return any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg"))
