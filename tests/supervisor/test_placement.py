"""Context, slots and layers from budgets; figures in MiB."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myllm.launcher.devices import HOST
from myllm.models.config import EngineOptions, ModelConfig
from myllm.models.gguf_header import UNKNOWN
from myllm.models.model import Model
from myllm.settings import Settings
from myllm.supervisor.device_headroom import GPU_CONTEXT_MB, DeviceHeadroom
from myllm.supervisor.placement import Estimate, Placement, choose, lay_out
from myllm.supervisor.spec import Layout

LAYERS = 31  # and the output: 32


def model(
    trained: int = 131072,
    context_size: int | None = None,
    slots: int | None = None,
    gpu_layers: int | None = None,
) -> Model:
    path = Path("/models/m")
    header = replace(UNKNOWN, layers=LAYERS, context_length=trained)
    options = EngineOptions(slots=slots, gpu_layers=gpu_layers)
    config = ModelConfig(context_size=context_size, engine=options)
    return Model("m", path, path / "m.gguf", (), 0, header, config)


def settings(**given: int) -> Settings:
    return Settings(_env_file=None, **given)  # type: ignore[arg-type,call-arg]


def estimate(weights: int, per_1k: int = 128) -> Estimate:
    return lambda context_size, slots: weights + per_1k * context_size * slots // 1024


def space(host: int, *gpus: int) -> dict[str, DeviceHeadroom]:
    """Devices that nobody uses."""
    names = [HOST, *(f"CUDA{number}" for number in range(len(gpus)))]
    return {name: DeviceHeadroom(mb, mb, mb) for name, mb in zip(names, (host, *gpus), strict=True)}


def sizes(placement: Placement) -> tuple[int, int, bool]:
    return placement.context_size, placement.slots, placement.automatic_context


@pytest.mark.parametrize(
    ("budget", "weights", "context_size", "slots"),
    [
        (16000, 4000, 4096, 4),  # 4000 + 2048 fit half; 4000 + 4096 do not
        (64000, 4000, 8192, 4),  # a CPU gets no longer one
        (9000, 4000, 2048, 4),  # more than half anyway
        (4600, 4000, 2048, 2),
        (4300, 4000, 2048, 1),
        (1000, 4000, 2048, 1),  # others will say that it does not fit
    ],
)
def test_on_the_cpu(budget: int, weights: int, context_size: int, slots: int) -> None:
    chosen = choose(model(), settings(), space(budget), estimate(weights))
    assert sizes(chosen) == (context_size, slots, True)
    assert chosen.layout == Layout()


@pytest.mark.parametrize(
    ("obtainable", "context_size", "slots"),
    [
        (8000, 4096, 4),  # what other programs have does not matter as long as this fits
        (6000, 2048, 4),
        (4300, 2048, 1),
        (1000, 2048, 1),
    ],
)
def test_what_other_programs_have_is_done_without(
    obtainable: int, context_size: int, slots: int
) -> None:
    headroom = {HOST: DeviceHeadroom(16000, obtainable, obtainable)}
    chosen = choose(model(), settings(), headroom, estimate(4000))
    assert sizes(chosen) == (context_size, slots, True)
    said = choose(model(context_size=4096, slots=3), settings(), headroom, estimate(4000))
    assert sizes(said) == (4096, 3, False)


@pytest.mark.parametrize(("trained", "chosen"), [(512, 512), (3000, 2048), (0, 8192), (4096, 4096)])
def test_no_longer_than_the_model_was_trained_for(trained: int, chosen: int) -> None:
    placement = choose(model(trained), settings(), space(64000), estimate(100))
    assert placement.context_size == chosen


def test_what_is_said_is_taken_as_it_is() -> None:
    tiny = space(100)
    said = model(context_size=3333, slots=7)
    assert sizes(choose(said, settings(), tiny, estimate(5000))) == (3333, 7, False)
    wide = settings(context_size=200_000, slots=2)
    assert sizes(choose(model(), wide, tiny, estimate(5000))) == (131072, 2, False)
    both = choose(said, wide, tiny, estimate(5000))
    assert sizes(both) == (3333, 7, False)  # config.json wins over the settings


def test_one_said_and_the_other_chosen() -> None:
    long = choose(model(context_size=16384), settings(), space(9000), estimate(4000))
    assert sizes(long) == (16384, 2, False)
    many = choose(model(slots=16), settings(), space(20000), estimate(4000))
    assert sizes(many) == (2048, 16, True)


def test_one_gpu_that_has_the_room_takes_all_layers() -> None:
    chosen = choose(model(), settings(), space(64000, 24000), estimate(4000))
    assert sizes(chosen) == (8192, 4, True)
    assert chosen.layout == Layout(("CUDA0",), LAYERS + 1)
    large = choose(model(), settings(), space(64000, 140000), estimate(4000))
    assert sizes(large) == (32768, 4, True)


def test_of_two_gpus_the_one_with_more_free_memory() -> None:
    busy = space(64000, 24000, 24000)
    busy["CUDA0"] = DeviceHeadroom(24000, 24000, 5000)
    assert lay_out(model(), 8000, busy).devices == ("CUDA1",)
    full = busy | {"CUDA1": DeviceHeadroom(24000, 24000, 0)}
    assert lay_out(model(), 8000, full).devices == ("CUDA0",)  # somebody has to leave


def test_what_other_programs_have_is_not_counted_on() -> None:
    others = space(64000, 24000, 16000)
    others["CUDA0"] = DeviceHeadroom(24000, 3000, 3000)
    assert lay_out(model(), 8000, others).devices == ("CUDA1",)


def test_a_model_too_large_for_one_gpu_is_split_by_their_room() -> None:
    chosen = choose(model(), settings(), space(64000, 24000, 12000), estimate(25000))
    shares = (24000 - GPU_CONTEXT_MB, 12000 - GPU_CONTEXT_MB)
    assert chosen.layout == Layout(("CUDA0", "CUDA1"), LAYERS + 1, shares)
    assert sizes(chosen) == (2048, 4, True)


def test_a_model_too_large_for_all_gpus_leaves_layers_on_the_host() -> None:
    chosen = choose(model(), settings(), space(64000, 12512), estimate(24000))
    assert sizes(chosen) == (8192, 4, True)
    need = estimate(24000)(8192, 4)
    assert chosen.layout.devices == ("CUDA0",)
    assert chosen.layout.gpu_layers is not None
    on_gpu = need * chosen.layout.gpu_layers / (LAYERS + 1)
    assert 12000 * 0.85 < on_gpu < 12000


def test_a_full_gpu_is_not_used() -> None:
    full = space(64000, 24000) | {"CUDA0": DeviceHeadroom(24000, 600, 600)}
    assert lay_out(model(), 8000, full) == Layout((), 0)


def test_layers_that_config_json_names() -> None:
    gpus = space(64000, 24000)
    assert lay_out(model(gpu_layers=0), 8000, gpus) == Layout((), 0)
    assert lay_out(model(gpu_layers=8), 80000, gpus) == Layout(("CUDA0",), 8)
    assert lay_out(model(gpu_layers=999), 8000, gpus) == Layout(("CUDA0",), LAYERS + 1)
    assert lay_out(model(gpu_layers=30), 80000, gpus) == Layout(("CUDA0",), 30)
    assert lay_out(model(gpu_layers=99), 8000, space(64000)) == Layout(gpu_layers=99)
    on_host = choose(model(gpu_layers=0), settings(), gpus, estimate(100))
    assert sizes(on_host) == (8192, 4, True)


def test_the_layout_in_llama_servers_words() -> None:
    assert Layout().arguments() == []
    assert Layout((), 0).arguments() == ["--device", "none", "--n-gpu-layers", "0"]
    split = Layout(("CUDA0", "CUDA2"), 33, (23000, 11000)).arguments()
    assert split[:2] == ["--device", "CUDA0,CUDA2"]
    assert split[2:] == ["--n-gpu-layers", "33", "--tensor-split", "23000,11000"]


@st.composite
def machines(draw: st.DrawFn) -> Mapping[str, DeviceHeadroom]:
    def device() -> DeviceHeadroom:
        budget, obtainable, free = sorted(
            draw(st.tuples(*[st.integers(0, 200_000)] * 3)), reverse=True
        )
        return DeviceHeadroom(budget, obtainable, free)

    names = [HOST, *(f"CUDA{number}" for number in range(draw(st.integers(0, 4))))]
    return {name: device() for name in names}


@given(machines(), st.integers(1, 400_000), st.integers(0, 2000))
def test_any_machine(machine: Mapping[str, DeviceHeadroom], weights: int, per_1k: int) -> None:
    chosen = choose(model(), settings(), machine, estimate(weights, per_1k))
    assert chosen.context_size in (2048, 4096, 8192, 16384, 32768)
    assert 1 <= chosen.slots <= 4
    layout = chosen.layout
    if len(machine) == 1:
        assert layout == Layout()
        return
    assert layout.devices is not None
    assert layout.gpu_layers is not None
    assert bool(layout.devices) == bool(layout.gpu_layers)
    assert set(layout.devices) <= set(machine) - {HOST}
    assert (layout.tensor_split is not None) == (len(layout.devices) > 1)
    shares = layout.tensor_split or (1,) * len(layout.devices)
    on_gpus = estimate(weights, per_1k)(chosen.context_size, chosen.slots)
    on_gpus = on_gpus * layout.gpu_layers // (LAYERS + 1)
    for name, share in zip(layout.devices, shares, strict=True):
        part = on_gpus * share // sum(shares)
        assert part + GPU_CONTEXT_MB <= machine[name].obtainable_mb + 1
