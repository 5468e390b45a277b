"""NVIDIA GPUs, with recorded tables in place of NVML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pynvml
import pytest

from myllm.launcher.devices import HOST, DeviceMemory, GpuReading
from myllm.launcher.local.devices import read_devices
from myllm.launcher.local.nvml import Nvml, open_nvml, visible

MIB = 2**20
UUIDS = [
    "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6",
    "GPU-89aa0011-22bb-4cc3-9d44-5566778899aa",
    "GPU-1f2e3d4c-5b6a-7988-a7b6-c5d4e3f20110",
]


@dataclass
class RecordedNvml:
    """pynvml's functions over a table: each GPU's total, free and per-process memory in MiB."""

    gpus: list[tuple[int, int, Mapping[int, int | None]]]
    broken: bool = False
    busy: Mapping[int, int] = field(default_factory=dict)
    watts: Mapping[int, float] = field(default_factory=dict)
    celsius: Mapping[int, int] = field(default_factory=dict)
    NVMLError: type[Exception] = field(default=pynvml.NVMLError)
    NVMLError_NotSupported: type[Exception] = field(default=pynvml.NVMLError_NotSupported)
    NVML_TEMPERATURE_GPU: int = field(default=pynvml.NVML_TEMPERATURE_GPU)

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return UUIDS[handle]

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        if self.broken:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        total, free, _ = self.gpus[handle]
        return SimpleNamespace(total=total * MIB, free=free * MIB, used=(total - free) * MIB)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(gpu=self.busy.get(handle, 0), memory=0)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        if handle not in self.watts:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return int(1000 * self.watts[handle])

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        if handle not in self.celsius:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return self.celsius[handle]

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[SimpleNamespace]:
        return [
            SimpleNamespace(pid=pid, usedGpuMemory=None if mb is None else mb * MIB)
            for pid, mb in self.gpus[handle][2].items()
        ]


TABLE = RecordedNvml(
    [
        (24576, 24000, {}),
        (81559, 60000, {4711: 18234, 4712: 2048}),
        (143771, 100000, {4711: 512, 9: None}),
    ]
)


def test_all_gpus_in_the_order_of_their_addresses() -> None:
    assert Nvml(TABLE, None).memory() == {
        "CUDA0": DeviceMemory(24576, 24000),
        "CUDA1": DeviceMemory(81559, 60000),
        "CUDA2": DeviceMemory(143771, 100000),
    }
    assert list(read_devices(Nvml(TABLE, None))) == [HOST, "CUDA0", "CUDA1", "CUDA2"]


def test_what_each_gpu_does_as_far_as_it_reports_that() -> None:
    table = replace(TABLE, busy={1: 37}, watts={1: 300.5, 2: 70.0}, celsius={1: 64})
    assert Nvml(table, "1,2").readings() == {
        "CUDA0": GpuReading(81559 * MIB, 21559 * MIB, 0.37, 300.5, 64),
        "CUDA1": GpuReading(143771 * MIB, 43771 * MIB, 0.0, 70.0, None),
    }
    assert Nvml(replace(table, broken=True), None).readings() == {}


def test_cuda_visible_devices_picks_and_orders() -> None:
    gpus = Nvml(TABLE, "2,0")
    assert [memory.total_mb for memory in gpus.memory().values()] == [143771, 24576]
    assert list(gpus.memory()) == ["CUDA0", "CUDA1"]
    assert gpus.used_mb(4711) == {"CUDA0": 512}


def test_memory_of_one_process() -> None:
    gpus = Nvml(TABLE, None)
    assert gpus.used_mb(4711) == {"CUDA1": 18234, "CUDA2": 512}
    assert gpus.used_mb(9) == {}  # a driver that does not report it
    assert gpus.used_mb(1) == {}


@pytest.mark.parametrize(
    ("selection", "chosen"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("1", [1]),
        ("2,1", [2, 1]),
        (" 0 , 2 ", [0, 2]),
        ("0,2,-1,1", [0, 2]),
        ("0,3,1", [0]),
        ("NoDevFiles", []),
        (UUIDS[2], [2]),
        ("GPU-1f2e,GPU-8932", [2, 0]),
        ("GPU-89", []),  # ambiguous: two UUIDs begin so
    ],
)
def test_which_gpus_cuda_shows(selection: str | None, chosen: list[int]) -> None:
    assert visible(UUIDS, selection) == chosen


def test_a_lost_gpu_is_left_out() -> None:
    assert Nvml(RecordedNvml(TABLE.gpus, broken=True), None).memory() == {}


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    assert open_nvml() is None


def test_pynvml_has_every_function_that_is_used() -> None:
    asked = [name for name in dir(RecordedNvml) if name.startswith("nvml")]
    assert len(asked) == 8
    assert all(callable(getattr(pynvml, name)) for name in asked)


@pytest.mark.parametrize(
    ("busy", "of_4712", "of_an_unlisted_one"),
    [({}, False, False), ({0: 97}, False, True), ({1: 3}, True, True), ({2: 100}, False, True)],
)
def test_a_process_is_working_while_a_gpu_that_it_uses_is_busy(
    busy: dict[int, int], of_4712: bool, of_an_unlisted_one: bool
) -> None:
    """A process that NVML does not list may be using any GPU."""
    gpus = Nvml(replace(TABLE, busy=busy), None)
    assert gpus.is_working(4712) is of_4712
    assert gpus.is_working(1) is of_an_unlisted_one
