"""How many tokens of a prompt llama-server reads at once.

Prompt speed comes first. Small batches leave most of a CPU or GPU unused: SmolLM2-135M Q4_1 on
two cores with AMX reads 180 tokens/s in batches of 32, 861 in batches of 128 and 1,059 in batches
of 512. Large batches delay everything that the engine does between two batches: noticing that a
client has left, and sending tokens to the other streams. So the batch is the smallest one that
reads (nearly) as fast as the best.

llama-server's batch size is fixed at its start, and it reads a shorter prompt in one smaller batch.
An engine with the largest size can therefore be measured with all sizes.
"""

from __future__ import annotations

from collections.abc import Mapping

# llama-server's defaults: the physical batch on a CPU, where a larger logical one gains nothing,
# and the logical batch on a GPU, which computes one part while the next one is prepared.
CPU_START = 512
GPU_START = 2048
SMALLEST = 64
# Speeds that differ by less than this are the same to a client that waits.
_AS_GOOD = 0.98
# The share of the best speed that suffices when a batch takes longer than _LONGEST_S.
_GOOD_ENOUGH = 0.9
_LONGEST_S = 5.0


def sizes_to_compare(largest: int) -> tuple[int, ...]:
    """The batch sizes worth a comparison: powers of two from SMALLEST to `largest`."""
    sizes = [SMALLEST]
    while sizes[-1] * 2 <= largest:
        sizes.append(sizes[-1] * 2)
    return tuple(sizes)


def best_batch(speeds: Mapping[int, float]) -> int:
    """The batch size to use, given prompt speeds in tokens per second by batch size.

    The smallest that reaches 98 % of the best speed; if one such batch takes longer than five
    seconds, the smallest that reaches 90 %. If that also takes longer than five seconds, and
    the speed at half its size is unknown, half its size, to measure it. `speeds` must not be
    empty.
    """
    size = _smallest(speeds, _AS_GOOD)
    if _is_quick(size, speeds):
        return size
    size = _smallest(speeds, _GOOD_ENOUGH)
    half = size // 2
    if not _is_quick(size, speeds) and half >= SMALLEST and half not in speeds:
        return half
    return size


def _smallest(speeds: Mapping[int, float], share: float) -> int:
    """The smallest size that reaches this share of the best speed."""
    enough = share * max(speeds.values())
    return min(size for size, speed in speeds.items() if speed >= enough)


def _is_quick(size: int, speeds: Mapping[int, float]) -> bool:
    return size / speeds[size] <= _LONGEST_S
