"""The batch size that a table of prompt speeds leads to."""

from __future__ import annotations

import pytest

from myllm.supervisor.batch_sizes import CPU_START, GPU_START, best_batch, sizes_to_compare


@pytest.mark.parametrize(
    ("speeds", "size"),
    [
        # SmolLM2-135M Q4_1 on two cores, with AMX and without.
        ({64: 803, 128: 861, 256: 960, 512: 1059}, 512),
        ({64: 187, 128: 222, 256: 242, 512: 250}, 512),
        ({64: 187, 128: 222, 256: 246, 512: 250}, 256),
        # Where the size hardly matters, the smallest has the shortest gaps.
        ({64: 990, 128: 1000, 256: 1000, 512: 995}, 64),
        ({64: 500, 128: 1000, 256: 900, 512: 800}, 128),
        ({64: 5000, 128: 9000, 256: 15000, 512: 18000, 1024: 19900, 2048: 20000}, 1024),
        ({512: 200}, 512),
    ],
)
def test_the_smallest_of_the_best(speeds: dict[int, float], size: int) -> None:
    assert best_batch(speeds) == size


@pytest.mark.parametrize(
    ("speeds", "size"),
    [
        # 512 tokens at 102.4 a second are just quick enough.
        ({64: 50, 128: 95, 256: 99, 512: 102.4}, 512),
        ({64: 50, 128: 91, 256: 96, 512: 100}, 128),
        ({64: 50, 128: 89, 256: 91, 512: 100}, 256),
        ({64: 9, 128: 9.2, 256: 9.9, 512: 10}, 64),
        # No smaller size reaches 90 %: speed comes first, whatever it takes.
        ({64: 5, 128: 6, 256: 7, 512: 10}, 512),
    ],
)
def test_a_batch_of_more_than_five_seconds_may_cost_a_tenth_of_the_speed(
    speeds: dict[int, float], size: int
) -> None:
    assert best_batch(speeds) == size


@pytest.mark.parametrize(
    ("speeds", "size"),
    [
        ({512: 10}, 256),
        ({256: 9.5, 512: 10}, 128),
        ({128: 8, 256: 9.5, 512: 10}, 256),
        ({64: 9.3, 128: 9.4, 256: 9.5, 512: 10}, 64),
    ],
)
def test_a_slow_model_tries_one_smaller_size_after_the_other(
    speeds: dict[int, float], size: int
) -> None:
    assert best_batch(speeds) == size


def test_what_is_compared() -> None:
    assert sizes_to_compare(CPU_START) == (64, 128, 256, 512)
    assert sizes_to_compare(GPU_START) == (64, 128, 256, 512, 1024, 2048)
