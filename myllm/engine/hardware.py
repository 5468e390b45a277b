"""What this machine has that an engine may have been compiled for; cheap to ask at each start."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

# The kernel also lists bugs, power states and virtualisation, which come and go with its version.
_X86 = "sse ssse avx fma f16c bmi amx popcnt abm aes pclmul vaes vpclmul gfni sha movbe adx xsave"
_X86_PREFIXES = tuple(_X86.split())
_FIRST_CPU_BYTES = 16384


@functools.cache
def cpu_features() -> frozenset[str]:
    """The machine's architecture and its instruction sets, as the kernel names them."""
    machine = platform.machine()
    try:
        with Path("/proc/cpuinfo").open() as file:
            lines = file.read(_FIRST_CPU_BYTES).splitlines()
    except OSError:
        return frozenset({machine, platform.processor()})
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return frozenset({machine, *filter(_is_instruction_set, value.split())})
        if name.strip() == "Features":
            return frozenset({machine, *value.split()})
    return frozenset({machine})


def _is_instruction_set(flag: str) -> bool:
    return flag.startswith(_X86_PREFIXES)


def nvidia_driver_is_there() -> bool:
    """Whether a program can open an NVIDIA GPU here; takes microseconds (`/dev/dxg`: WSL)."""
    return any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg"))
