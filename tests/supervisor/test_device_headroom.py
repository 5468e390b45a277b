"""What engines may take of each device's memory."""

from __future__ import annotations

from myllm.launcher.devices import HOST, DeviceMemory
from myllm.settings import Settings
from myllm.supervisor.device_headroom import DeviceHeadroom, budgets, headroom

DEVICES = {HOST: DeviceMemory(16000, 9000), "CUDA0": DeviceMemory(24000, 20000)}


def settings(**given: int) -> Settings:
    return Settings(_env_file=None, **given)  # type: ignore[arg-type,call-arg]


def test_budgets_are_set_or_all_but_the_reserve() -> None:
    assert budgets(DEVICES, settings()) == {HOST: 15488, "CUDA0": 23488}
    assert budgets(DEVICES, settings(memory_reserve_mb=1000)) == {HOST: 15000, "CUDA0": 23000}
    chosen = settings(memory_budget_mb=8000, gpu_budget_mb=99999)
    assert budgets(DEVICES, chosen) == {HOST: 8000, "CUDA0": 24000}
    assert budgets({HOST: DeviceMemory(300, 200)}, settings()) == {HOST: 0}


def test_what_other_programs_have_cannot_be_obtained_but_what_engines_have_can() -> None:
    own = {HOST: 2000}
    assert headroom(DEVICES, settings(), own) == {
        HOST: DeviceHeadroom(budget_mb=15488, obtainable_mb=10488, free_mb=8488),
        "CUDA0": DeviceHeadroom(budget_mb=23488, obtainable_mb=19488, free_mb=19488),
    }
    little = headroom(DEVICES, settings(memory_budget_mb=3000), own)[HOST]
    assert little == DeviceHeadroom(budget_mb=3000, obtainable_mb=3000, free_mb=1000)
    over = headroom(DEVICES, settings(memory_budget_mb=1000), own)[HOST]
    assert over.free_mb == 0
