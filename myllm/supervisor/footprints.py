"""What an engine takes on each device: predicted before its first load, then measured."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import orjson
import structlog

from myllm.engine.memory_prediction import DeviceNeed, fit_params
from myllm.errors import EngineError
from myllm.launcher.devices import HOST, MemoryByDevice
from myllm.models.memory_estimate import checkpoint_bytes, estimate_mb
from myllm.supervisor.device_headroom import GPU_CONTEXT_MB
from myllm.supervisor.spec import InstanceSpec

_log = structlog.get_logger(__name__)

# llama-server's code, heap and threads, and what it keeps per token of its vocabulary: resident
# beyond the tool's sum were 18 MiB with 1,500 tokens, 26 with 32,000 and 59 with 152,000.
_PROCESS_MB: Final = 18
_TOKEN_BYTES: Final = 280
# CUDA's libraries and pinned buffers: 313 to 318 MiB after a load on an H100, 480 to 560 when
# long prompts had been read.
_CUDA_PROCESS_MB: Final = 500
_F32: Final = 4
_MIB: Final = 2**20
# A figure below the remembered one counts by half: only the first long prompt touches the compute
# buffers, so an engine that has just loaded shows less than it will take.
_WEIGHT_OF_LESS: Final = 0.5
_MAX_REMEMBERED: Final = 1000


@dataclass(frozen=True)
class Footprint:
    """MiB per device, and where the figure is from; `header`: estimated from the model's sizes."""

    need: dict[str, int]
    source: Literal["measured", "predicted", "header"]


class Footprints:
    """Footprints by model digest and arguments; measured ones are kept in `file`.

    `tool` is llama-fit-params; None if the engine came without it.
    """

    def __init__(self, file: Path, tool: Path | None) -> None:
        self._file = file
        self._tool = tool
        self._measured = _read(file)
        self._predicted: dict[str, Footprint] = {}
        self._warned = False

    async def predict(self, spec: InstanceSpec) -> Footprint:
        """What an instance of `spec` will take; takes under 0.1 s the first time."""
        key = _key(spec)
        if key in self._measured:
            return Footprint(dict(self._measured[key]), "measured")
        if key not in self._predicted:
            self._predicted[key] = await self._predict(spec)
        return self._predicted[key]

    def measured(self, spec: InstanceSpec, used: MemoryByDevice, worked: bool) -> dict[str, int]:
        """Record what an instance of `spec` was measured to take; returns the new estimate.

        More than was known counts at once. Less counts gradually, and only when the instance has
        ended and has `worked`: until then it may not have touched all of its buffers. Devices that
        `used` does not name stay as predicted.
        """
        key = _key(spec)
        known = self._measured.get(key)
        if known is None:
            known = self._predicted[key].need if key in self._predicted else {}
        if not worked:
            used = {name: max(mb, known.get(name, 0)) for name, mb in used.items()}
        seen = {name: _estimate(known.get(name), mb) for name, mb in used.items()}
        self._measured.pop(key, None)  # so that the latest is last
        self._measured[key] = {**known, **seen}
        return dict(self._measured[key])

    def forget(self, spec: InstanceSpec) -> None:
        """Forget what an instance of `spec` was measured to take: it is not what it needs."""
        self._measured.pop(_key(spec), None)

    def save(self) -> None:
        """Replace the file; a failure is only logged, because the file is a hint."""
        aside = self._file.with_suffix(".new")
        latest = dict(list(self._measured.items())[-_MAX_REMEMBERED:])
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(orjson.dumps(latest))
            os.replace(aside, self._file)
        except OSError as failure:
            _log.warning("memory figures not saved", cause=str(failure))

    async def _predict(self, spec: InstanceSpec) -> Footprint:
        try:
            needs = await self._fit(spec)
        except EngineError as failure:
            if not self._warned:
                _log.warning("memory is estimated from the header", cause=failure.detail)
                self._warned = True
            return Footprint(_from_header(spec), "header")
        return Footprint(_sum(spec, needs), "predicted")

    async def _fit(self, spec: InstanceSpec) -> tuple[DeviceNeed, ...]:
        if self._tool is None:
            raise EngineError("llama-fit-params is not next to the engine")
        return await fit_params(self._tool, ("--model", str(spec.model.gguf), *spec.sizes()))


def growth_mb(spec: InstanceSpec, context_size: int) -> int:
    """How much more memory an instance takes with a longer context, estimated from the header.

    That is an upper bound for a model with a sliding window, see `models/memory_estimate.py`.
    """
    longer = replace(spec, context_size=context_size)
    return sum(_from_header(longer).values()) - sum(_from_header(spec).values())


def extras_mb(spec: InstanceSpec) -> int:
    """What llama-fit-params leaves out, besides the process itself and a projector.

    That is the prompt cache, the checkpoints of slots, and the outputs of an embedding or a score,
    which keeps a vector and, unused, the logits of every token of its input (llama.cpp,
    `llama_context::output_reserve`).
    """
    header = spec.model.header
    extra = spec.cache_ram_mb * _MIB
    if spec.key.role == "generate":
        one = checkpoint_bytes(header, spec.context_size, spec.physical_batch)
        extra += spec.slots * spec.checkpoints * one
    else:
        extra += spec.batch * (header.vocabulary_size + header.embedding_length) * _F32
    return -(-extra // _MIB)


def _sum(spec: InstanceSpec, needs: tuple[DeviceNeed, ...]) -> dict[str, int]:
    *gpus, host = needs
    process = _PROCESS_MB + spec.model.header.vocabulary_size * _TOKEN_BYTES // _MIB
    process += _CUDA_PROCESS_MB if gpus else 0
    summed = {HOST: host.total_mb + process + extras_mb(spec)}
    summed |= {gpu.name: gpu.total_mb + GPU_CONTEXT_MB for gpu in gpus}
    if spec.projector is not None:
        # llama-server loads it on the first GPU that the model uses.
        summed[gpus[0].name if gpus else HOST] += -(-spec.projector.size_bytes // _MIB)
    return summed


def _from_header(spec: InstanceSpec) -> dict[str, int]:
    """The estimate from the header, divided over the devices of the layout."""
    total = estimate_mb(spec.model, spec.context_size, spec.slots, spec.physical_batch)
    gpus, layers = spec.layout.devices or (), spec.layout.gpu_layers or 0
    everything = spec.model.header.layers + 1
    on_gpus = total * min(layers, everything) // everything if gpus else 0
    shares = spec.layout.tensor_split or (1,) * len(gpus)
    cuda = _CUDA_PROCESS_MB if gpus else 0
    need = {HOST: total - on_gpus + cuda + extras_mb(spec)}
    for name, share in zip(gpus, shares, strict=True):
        need[name] = on_gpus * share // sum(shares) + GPU_CONTEXT_MB
    return need


def _estimate(known: int | None, seen: int) -> int:
    if known is None or seen >= known:
        return seen
    return round(known - _WEIGHT_OF_LESS * (known - seen))


def _key(spec: InstanceSpec) -> str:
    projector = spec.projector.digest if spec.projector else ""
    return " ".join(
        (spec.model.digest, spec.key.role, projector, str(spec.cache_ram_mb), *spec.sizes())
    )


def _read(file: Path) -> dict[str, dict[str, int]]:
    try:
        content = orjson.loads(file.read_bytes())
        return {
            str(key): {str(name): int(mb) for name, mb in need.items()}
            for key, need in content.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as failure:
        _log.warning("memory figures not read", file=str(file), cause=str(failure))
        return {}
