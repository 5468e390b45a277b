"""NVIDIA's GPUs through NVML, the library behind nvidia-smi."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import structlog

from myllm.launcher.devices import DeviceMemory, GpuReading

_log = structlog.get_logger(__name__)
_MIB = 2**20
_T = TypeVar("_T")


def open_nvml() -> Nvml | None:
    """The GPUs that engines of this process can see; None without a driver."""
    import pynvml  # imported late: most machines that run this have no GPU

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return Nvml(pynvml, os.environ.get("CUDA_VISIBLE_DEVICES"))


class Nvml:
    """A GpuReader. It numbers GPUs as CUDA does in engines: in the order of their PCI
    addresses (`CUDA_DEVICE_ORDER`), then picked by `CUDA_VISIBLE_DEVICES` (`selection`)."""

    def __init__(self, pynvml: Any, selection: str | None) -> None:
        self._nvml = pynvml
        self._selection = selection

    def memory(self) -> dict[str, DeviceMemory]:
        """Total and free memory of each visible GPU."""
        return self._of_each(self._memory)

    def used_mb(self, pid: int) -> dict[str, int]:
        """What the process has on each GPU. Empty when NVML does not show the process, as in a
        container whose process ids are not the host's."""
        return self._of_each(lambda handle: self._used_mb(handle, pid))

    def readings(self) -> dict[str, GpuReading]:
        """Memory, load, power and temperature of each visible GPU."""
        return self._of_each(self._reading)

    def is_working(self, pid: int) -> bool:
        """Whether a GPU that the process uses computes at this moment, for any process. Where NVML
        does not show which GPUs it uses, every visible GPU counts."""
        rates = self._of_each(
            lambda handle: int(self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        )
        used = self.used_mb(pid) or rates
        return any(rates.get(name, 0) > 0 for name in used)

    def _memory(self, handle: Any) -> DeviceMemory:
        facts = self._nvml.nvmlDeviceGetMemoryInfo(handle)
        return DeviceMemory(facts.total // _MIB, facts.free // _MIB)

    def _reading(self, handle: Any) -> GpuReading:
        nvml = self._nvml
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        rates = self._if_known(nvml.nvmlDeviceGetUtilizationRates, handle)
        milliwatts = self._if_known(nvml.nvmlDeviceGetPowerUsage, handle)
        celsius = self._if_known(
            lambda gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU), handle
        )
        return GpuReading(
            total_bytes=memory.total,
            used_bytes=memory.total - memory.free,
            utilization=None if rates is None else rates.gpu / 100,
            power_w=None if milliwatts is None else milliwatts / 1000,
            temperature_c=celsius,
        )

    def _if_known(self, ask: Callable[[Any], Any], handle: Any) -> Any:
        """What `ask` returns; None if this kind of GPU does not report it."""
        try:
            return ask(handle)
        except self._nvml.NVMLError_NotSupported:
            return None

    def _used_mb(self, handle: Any, pid: int) -> int | None:
        for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(handle):
            if process.pid == pid and process.usedGpuMemory is not None:
                return int(process.usedGpuMemory // _MIB)
        return None

    def _of_each(self, ask: Callable[[Any], _T | None]) -> dict[str, _T]:
        """The answers for the visible GPUs, without GPUs that have none or do not answer."""
        table = {}
        try:
            for name, handle in self._visible().items():
                answer = ask(handle)
                if answer is not None:
                    table[name] = answer
        except self._nvml.NVMLError as failure:
            _log.warning("a GPU does not answer", cause=str(failure))
        return table

    def _visible(self) -> dict[str, Any]:
        count = self._nvml.nvmlDeviceGetCount()
        handles = [self._nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        uuids = [self._nvml.nvmlDeviceGetUUID(handle) for handle in handles]
        chosen = visible(uuids, self._selection)
        return {f"CUDA{number}": handles[index] for number, index in enumerate(chosen)}


def visible(uuids: Sequence[str], selection: str | None) -> list[int]:
    """The GPUs that CUDA shows, in its order, as indices into `uuids`.

    `selection` is CUDA_VISIBLE_DEVICES: indices, or UUIDs, which may be shortened to their first
    characters; entries after one that names no GPU do not count (CUDA programming guide,
    environment variables).
    """
    if selection is None:
        return list(range(len(uuids)))
    chosen: list[int] = []
    for entry in selection.split(","):
        index = _index(entry.strip(), uuids)
        if index is None:
            break
        chosen.append(index)
    return chosen


def _index(entry: str, uuids: Sequence[str]) -> int | None:
    if entry.isdecimal():
        return int(entry) if int(entry) < len(uuids) else None
    found = [index for index, uuid in enumerate(uuids) if entry and uuid.startswith(entry)]
    return found[0] if len(found) == 1 else None
