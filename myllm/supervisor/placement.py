"""How large an instance is made and where its layers go; pure, from budgets and estimates.

Context and slots are what config.json or the settings say. What they leave open follows from
the budget, which does not change while the server runs, so that a model gets the same each time:

1. four slots, and the longest context that keeps the instance within half of the budget, so
   that another model fits next to it;
2. for a model that takes more than half by itself: the shortest context, and as many slots
   as fit the whole budget;
3. one slot of the shortest context; the scheduler decides whether even that fits.

Where other programs take so much memory that the result could not be obtained, the same rules
are applied to what can be.

Layers: all on one GPU that has enough (the one with most free memory now), else
split over all GPUs, else as many as fit, and the rest on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from myllm.launcher.devices import HOST
from myllm.models.model import Model
from myllm.settings import Settings
from myllm.supervisor.device_headroom import GPU_CONTEXT_MB, DeviceHeadroom
from myllm.supervisor.spec import Layout

Estimate = Callable[[int, int], int]
"""MiB that a model takes on all devices together, by context size and number of slots."""

_SLOTS: Final = 4
_SHORTEST: Final = 2048
_LONGEST_ON_CPU: Final = 8192
_LONGEST_ON_GPU: Final = 32768
# Buffers for computing are on every device, and layers differ in size.
_UNEVEN: Final = 1.05


@dataclass(frozen=True)
class Placement:
    """The sizes of an instance and where its layers go. `context_size` is that of one slot."""

    context_size: int
    slots: int
    automatic_context: bool
    layout: Layout


def choose(
    model: Model, settings: Settings, headroom: Mapping[str, DeviceHeadroom], estimate: Estimate
) -> Placement:
    """The sizes and the layout for a generating instance of `model`."""
    given = model.config.context_size or settings.context_size
    context_size, slots = _sizes(model, settings, headroom, estimate)
    layout = lay_out(model, estimate(context_size, slots), headroom)
    return Placement(context_size, slots, given is None, layout)


def lay_out(model: Model, need_mb: int, headroom: Mapping[str, DeviceHeadroom]) -> Layout:
    """Where the layers of an instance go that takes `need_mb` altogether.

    Without a known GPU the engine gets only the placement that config.json specifies.
    """
    wanted = model.config.engine.gpu_layers
    if wanted == 0:
        return Layout(devices=(), gpu_layers=0)
    usable = _usable(headroom)
    if not usable:
        return Layout(gpu_layers=wanted)
    everything = model.header.layers + 1  # the output counts as one
    layers = everything if wanted is None else min(wanted, everything)
    need = need_mb * layers // everything
    enough = [name for name, mb in usable.items() if mb >= need]
    if enough:
        freest = max(enough, key=lambda name: headroom[name].free_mb)
        return Layout((freest,), layers)
    if wanted is None and sum(usable.values()) < need:
        layers = int(sum(usable.values()) * everything / (need_mb * _UNEVEN))
    return _split(layers, {name: mb for name, mb in usable.items() if mb > 0})


def _split(layers: int, usable: Mapping[str, int]) -> Layout:
    if layers == 0 or not usable:
        return Layout(devices=(), gpu_layers=0)
    shares = tuple(usable.values()) if len(usable) > 1 else None
    return Layout(tuple(usable), layers, shares)


def _usable(headroom: Mapping[str, DeviceHeadroom]) -> dict[str, int]:
    """What a model can have on each GPU, without what CUDA itself takes there."""
    return {
        name: max(each.obtainable_mb - GPU_CONTEXT_MB, 0)
        for name, each in headroom.items()
        if name != HOST
    }


def _sizes(
    model: Model, settings: Settings, headroom: Mapping[str, DeviceHeadroom], estimate: Estimate
) -> tuple[int, int]:
    """Context size and slots, by the rules at the top of this file."""
    chosen = _sizes_within(model, settings, headroom, estimate)
    now = {name: replace(each, budget_mb=each.obtainable_mb) for name, each in headroom.items()}
    need = estimate(*chosen)
    if need <= _budget(model, now, need)[0]:
        return chosen
    return _sizes_within(model, settings, now, estimate)


def _sizes_within(
    model: Model, settings: Settings, headroom: Mapping[str, DeviceHeadroom], estimate: Estimate
) -> tuple[int, int]:
    given, slots = model.config.context_size or settings.context_size, _slots(model, settings)
    shortest = model.context_for(given or _SHORTEST)
    budget, longest = _budget(model, headroom, estimate(shortest, slots[-1]))
    contexts = [shortest] if given else _contexts(shortest, model.context_for(longest))
    for context in contexts:
        if estimate(context, slots[0]) <= budget // 2:
            return context, slots[0]
    for count in slots:
        if estimate(shortest, count) <= budget:
            return shortest, count
    return shortest, slots[-1]


def _slots(model: Model, settings: Settings) -> list[int]:
    """The numbers of slots that may be chosen, most first."""
    given = model.config.engine.slots or settings.slots
    return [given] if given else list(range(_SLOTS, 0, -1))


def _contexts(shortest: int, longest: int) -> list[int]:
    """`shortest` and its doubles up to `longest`, longest first."""
    contexts = [shortest]
    while contexts[-1] * 2 <= longest:
        contexts.append(contexts[-1] * 2)
    return contexts[::-1]


def _budget(model: Model, headroom: Mapping[str, DeviceHeadroom], least_mb: int) -> tuple[int, int]:
    """The budget of the devices that the model goes to, and the longest context there.

    One GPU if the least instance fits it, else all, else all and the host.
    """
    host = headroom[HOST].budget_mb
    gpus = [
        max(each.budget_mb - GPU_CONTEXT_MB, 0) for name, each in headroom.items() if name != HOST
    ]
    if not gpus or model.config.engine.gpu_layers == 0:
        return host, _LONGEST_ON_CPU
    for budget in (max(gpus), sum(gpus)):
        if least_mb <= budget:
            return budget, _LONGEST_ON_GPU
    return sum(gpus) + host, _LONGEST_ON_CPU
