"""Predicted memory against what real engines take, and what is remembered of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from myllm.engine.engine import Engine
from myllm.launcher.base import LaunchSpec
from myllm.launcher.devices import HOST
from myllm.launcher.local.launcher import LocalLauncher
from myllm.launcher.local.runtime_dir import RuntimeDir
from myllm.models.memory_estimate import kv_bytes
from myllm.models.model import Model
from myllm.models.projector import Projector
from myllm.models.registry import Registry
from myllm.supervisor.device_headroom import GPU_CONTEXT_MB
from myllm.supervisor.footprints import Footprint, Footprints, extras_mb, growth_mb
from myllm.supervisor.instance import Hooks, Instance
from myllm.supervisor.spec import (
    InstanceKey,
    InstanceSpec,
    Layout,
    Role,
    input_context,
    input_slots,
)
from tests.ggufs import write_header

FAR_OFF = 0.10
TINY_MB = 8
"""What does not matter of a model that takes less than a hundred MiB."""


@pytest.fixture
def demo(tmp_path: Path) -> Model:
    return Registry(tmp_path / "models").get("demo")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "footprints.json"


def spec_of(
    model: Model, role: Role = "generate", context_size: int = 2048, batch: int = 128
) -> InstanceSpec:
    if role != "generate":
        context_size = batch = min(context_size, input_context(model))
    slots = 4 if role == "generate" else input_slots(model)
    return InstanceSpec(InstanceKey(model.name, role), model, context_size, slots, batch)


@asynccontextmanager
async def running(spec: InstanceSpec, engine: Engine, home: Path) -> AsyncIterator[Instance]:
    """A real engine of `spec`, ready."""
    ready = asyncio.Event()
    runtime = RuntimeDir(home)
    instance = Instance(
        1,
        spec,
        LaunchSpec(spec.file_stem, spec.argv(engine.server)),
        LocalLauncher(runtime, home / "logs"),
        Hooks(lambda _: asyncio.sleep(0), lambda _: ready.set(), lambda _: ready.set()),
        load_timeout_s=60,
        stop_grace_s=0.5,
    )
    life = asyncio.create_task(instance.run())
    try:
        await asyncio.wait_for(ready.wait(), 60)
        assert instance.state == "ready", instance.error
        yield instance
    finally:
        instance.stop()
        await life
        runtime.remove()


async def used_after(spec: InstanceSpec, engine: Engine, home: Path, tokens: int) -> int:
    """Resident MiB of an engine that has read a prompt of `tokens` tokens."""
    async with running(spec, engine, home) as instance:
        prompt = [1 + number % 200 for number in range(tokens)]
        path, body = "/completion", {"prompt": prompt, "n_predict": 4}
        if spec.key.role == "embed":
            path, body = "/embeddings", {"input": prompt}
        answer = await instance.client.post(path, orjson.dumps(body), 120)
        assert answer.status == 200, answer
        assert instance.process is not None
        return instance.process.memory_mb()[HOST]


def close(predicted: int, used: int) -> bool:
    print(f"predicted {predicted} MiB, used {used} MiB")
    return abs(predicted - used) <= FAR_OFF * used + TINY_MB


@pytest.mark.parametrize("role", ["generate", "embed"])
async def test_a_tiny_model_takes_what_was_predicted(
    role: Role, demo: Model, file: Path, engine: Engine, home: Path
) -> None:
    spec = spec_of(demo, role)
    footprint = await Footprints(file, engine.tool("llama-fit-params")).predict(spec)
    used = await used_after(spec, engine, home, 1500)
    assert footprint.source == "predicted"
    assert close(footprint.need[HOST], used), (footprint, used)


@pytest.mark.parametrize(
    ("role", "context_size", "batch", "tokens"),
    [("generate", 2048, 128, 200), ("generate", 1024, 512, 520), ("embed", 512, 512, 500)],
)
@pytest.mark.more
async def test_a_model_of_real_size_takes_what_was_predicted(
    role: Role,
    context_size: int,
    batch: int,
    tokens: int,
    big_model: Path,
    file: Path,
    engine: Engine,
    home: Path,
) -> None:
    spec = spec_of(Registry(big_model.parent.parent).get("big"), role, context_size, batch)
    footprint = await Footprints(file, engine.tool("llama-fit-params")).predict(spec)
    used = await used_after(spec, engine, home, tokens)
    assert close(footprint.need[HOST], used), (footprint, used)


async def test_without_the_tool_the_header_tells(demo: Model, file: Path, engine: Engine) -> None:
    spec = spec_of(demo)
    exact = await Footprints(file, engine.tool("llama-fit-params")).predict(spec)
    for tool in (None, file.with_name("none")):
        estimated = await Footprints(file, tool).predict(spec)
        assert estimated.source == "header"
        assert exact.need[HOST] <= estimated.need[HOST] <= 1.5 * exact.need[HOST]


async def test_a_header_is_shared_over_the_devices(demo: Model, file: Path) -> None:
    layers = demo.header.layers + 1
    split = Layout(("CUDA0", "CUDA1"), layers, (3, 1))
    footprints = Footprints(file, None)
    need = (await footprints.predict(replace(spec_of(demo), layout=split))).need
    model_mb = [need[name] - GPU_CONTEXT_MB for name in ("CUDA0", "CUDA1")]
    assert model_mb[0] == pytest.approx(3 * model_mb[1], abs=3)
    half = Layout(("CUDA0",), layers // 2)
    need = (await footprints.predict(replace(spec_of(demo), layout=half))).need
    assert need["CUDA0"] > GPU_CONTEXT_MB
    assert need[HOST] > 0


async def test_figures_of_gpus_come_with_what_cuda_takes(
    demo: Model, file: Path, tmp_path: Path
) -> None:
    tool = tmp_path / "llama-fit-params"
    tool.write_text('#!/bin/sh\necho "CUDA0 3921 512 300 "; echo "Host 410 0 24 "\n')
    tool.chmod(0o755)
    footprint = await Footprints(file, tool).predict(spec_of(demo))
    assert footprint.need["CUDA0"] == 3921 + 512 + 300 + GPU_CONTEXT_MB
    assert 434 < footprint.need[HOST] < 1000
    assert set(footprint.need) == {HOST, "CUDA0"}


async def test_a_projector_counts_where_the_engine_has_it(
    demo: Model, file: Path, tmp_path: Path
) -> None:
    tool = tmp_path / "llama-fit-params"
    sees = Projector(tmp_path / "mmproj.gguf", ("image",), 50 * 2**20, "digest")
    spec, seeing = spec_of(demo), replace(spec_of(demo), projector=sees)
    for lines, device in (("Host 410 0 24", HOST), ("CUDA0 99 1 1\nHost 410 0 24", "CUDA0")):
        tool.write_text(f"#!/bin/sh\necho '{lines}'\n")
        tool.chmod(0o755)
        footprints = Footprints(file, tool)
        without = (await footprints.predict(spec)).need
        assert (await footprints.predict(seeing)).need == without | {device: without[device] + 50}


async def test_more_counts_at_once_and_less_by_and_by(demo: Model, file: Path) -> None:
    spec, footprints = spec_of(demo), Footprints(file, None)
    predicted = (await footprints.predict(spec)).need[HOST]
    footprints.measured(spec, {HOST: predicted + 40}, worked=False)
    assert await footprints.predict(spec) == Footprint({HOST: predicted + 40}, "measured")
    footprints.measured(spec, {HOST: predicted}, worked=False)
    assert (await footprints.predict(spec)).need == {HOST: predicted + 40}
    footprints.measured(spec, {HOST: predicted}, worked=True)
    assert (await footprints.predict(spec)).need == {HOST: predicted + 20}
    for _ in range(20):
        footprints.measured(spec, {HOST: 10}, worked=True)
    assert (await footprints.predict(spec)).need[HOST] < 12


async def test_a_device_that_was_not_measured_stays_as_predicted(demo: Model, file: Path) -> None:
    spec = replace(spec_of(demo), layout=Layout(("CUDA0",), demo.header.layers + 1))
    footprints = Footprints(file, None)
    predicted = (await footprints.predict(spec)).need
    footprints.measured(spec, {HOST: 9999}, worked=True)
    measured = (await footprints.predict(spec)).need
    assert measured == {HOST: 9999, "CUDA0": predicted["CUDA0"]}


async def test_measured_figures_outlive_the_server_for_the_same_sizes(
    demo: Model, file: Path
) -> None:
    spec, footprints = spec_of(demo), Footprints(file, None)
    footprints.measured(spec, {HOST: 1234}, worked=True)
    footprints.save()
    again = Footprints(file, None)
    assert await again.predict(spec) == Footprint({HOST: 1234}, "measured")
    others = [
        replace(spec, slots=3),
        replace(spec, batch=64),
        replace(spec, cache_ram_mb=64),
        replace(spec, layout=Layout((), 0)),
        replace(spec, key=InstanceKey("demo", "embed")),
    ]
    for other in others:
        assert (await again.predict(other)).source == "header"
    renamed = replace(spec, key=InstanceKey("copy", "generate"))
    assert (await again.predict(renamed)).need == {HOST: 1234}


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', '{"a": {"host": "x"}}'])
def test_an_unreadable_file_is_as_none(demo: Model, file: Path, content: str) -> None:
    file.parent.mkdir()
    file.write_text(content)
    footprint = asyncio.run(Footprints(file, None).predict(spec_of(demo)))
    assert footprint.source == "header"


def test_states_to_go_back_to_are_bounded_and_counted(tmp_path: Path) -> None:
    write_header(tmp_path / "w" / "w.gguf", "gemma3", attention__sliding_window=384)
    spec = spec_of(Registry(tmp_path).get("w"))
    # 512 tokens of 2 layers with 2 heads of 16 keys and 16 values in f16; for 4 slots.
    assert (spec.checkpoints, extras_mb(spec)) == (4, 4 * 4 * 512 * 2 * 2 * 32 * 2 // 2**20)
    one = replace(spec, context_size=512)
    assert one.checkpoints == 2
    arguments = spec.argv(Path("llama-server"))
    assert arguments[arguments.index("--ctx-checkpoints") + 1] == "4"


def test_a_longer_context_takes_more_by_its_keys_and_values(demo: Model) -> None:
    spec = spec_of(demo)
    grown = kv_bytes(demo.header, 8192, 4) - kv_bytes(demo.header, 2048, 4)
    assert growth_mb(spec, 8192) == pytest.approx(grown / 2**20, rel=0.2)
    assert growth_mb(spec, 2048) == 0


def test_what_comes_on_top(demo: Model) -> None:
    spec = spec_of(demo)
    assert extras_mb(spec) == 0
    assert extras_mb(replace(spec, cache_ram_mb=100)) == 100
    outputs = 2048 * (demo.header.vocabulary_size + demo.header.embedding_length) * 4 / 2**20
    assert extras_mb(spec_of(demo, "embed")) == pytest.approx(outputs, abs=1)
    assert extras_mb(spec_of(demo, "rerank")) == extras_mb(spec_of(demo, "embed"))
