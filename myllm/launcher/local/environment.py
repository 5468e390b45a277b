"""The environment of an engine: an allow-list, so that no secret or stray option leaks in.

An inherited `LLAMA_ARG_*` would change the engine's settings unnoticed, and an engine needs none of
the server's tokens.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from myllm.launcher.local import child_protocol
from myllm.launcher.media_marker import MEDIA_MARKER, VARIABLE

_NAMES = frozenset(
    {"PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "XDG_CACHE_HOME"}
    | {"GLIBC_TUNABLES"}
)
_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "NCCL_", "GGML_", "OMP_", "GOMP_", "HIP_", "ROCR_", "VK_")
# NVML's order of the GPUs, so that `CUDA0` is the same GPU for the engine and for NVML.
_GPU_ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}

# How long a thread of libgomp spins before it sleeps when it waits for the others. The default,
# some 300,000 rounds, suits one engine that has the cores for itself; two that answer at once
# on the same cores wait for threads that do not run. On two cores, tokens per second of two
# engines at once, each with two threads: 1,500 against 32 with 2.9 million parameters, 27 against
# 12 with 1.1 billion; alone both are as fast as before.
_SHORT_SPIN = {"GOMP_SPINCOUNT": "10000"}

# How many freed blocks of each size a thread of glibc keeps for itself; the default is 7. Reading
# a request, rendering its prompt and writing the answer are thousands of small blocks, a quarter
# of what a short request costs the engine. On two cores, 16 clients, answers of one token: 1,650
# requests per second against 1,530, 930 µs of CPU each against 1,060, for 3 MB.
_MANY_KEPT_BLOCKS = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=200"}


def engine_environment(inherited: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables an engine gets out of `inherited` (this process's own by default)."""
    source = os.environ if inherited is None else inherited
    allowed = {
        name: value
        for name, value in source.items()
        if name in _NAMES or name.startswith(_PREFIXES)
    }
    defaults = _SHORT_SPIN | _MANY_KEPT_BLOCKS
    return defaults | allowed | _GPU_ORDER | child_protocol.ENVIRONMENT | {VARIABLE: MEDIA_MARKER}
