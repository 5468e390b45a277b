"""Batch sizes compared on a real engine, on calm and on busy machines."""

from __future__ import annotations

import multiprocessing
import os
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from myllm.api.shared.dependencies import Services
from myllm.engine.engine import Engine
from myllm.gateway.generation.answers import RawAnswer
from myllm.gateway.generation.events import Finished
from myllm.gateway.scheduling.tickets import RequestInfo
from myllm.supervisor import batch_comparison, supervisor
from myllm.supervisor.engine_client import EngineAnswer, EngineClient
from myllm.supervisor.prompt_speeds import Known
from myllm.supervisor.spec import InstanceKey, InstanceSpec
from tests.gateway.generation.cutting import running_services
from tests.recurrent_and_sliding import write_recurrent, write_sliding

KEY = InstanceKey("demo", "generate")
SIZES = {64, 128, 256, 512}
PROMPT = "word " * 600


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time is no matter."""
    monkeypatch.setattr(batch_comparison, "MAX_S", 60.0)
    monkeypatch.setattr(batch_comparison, "_PROBE_MAX_S", 60.0)


@pytest.fixture
def calm(patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else runs on the machine, it counts as calm, and time is no matter."""
    monkeypatch.setattr(batch_comparison, "_MAX_WAITING", 1e9)


def _burn() -> None:
    while True:
        pass


@contextmanager
def busy_cores() -> Iterator[None]:
    """Several processes for each core that compute and do nothing else."""
    fork = multiprocessing.get_context("fork")
    burning = [fork.Process(target=_burn, daemon=True) for _ in range(2 * (os.cpu_count() or 1))]
    for each in burning:
        each.start()
    try:
        yield
    finally:
        for each in burning:
            each.kill()
            each.join()


async def spec_now(services: Services) -> InstanceSpec:
    """What the next engine would run with."""
    return (await services.gateway.planner.plan(KEY)).spec


def known(services: Services, spec: InstanceSpec) -> Known:
    return services.gateway.supervisor.speeds._known[spec.speed_key]


async def test_the_first_load_compares_and_the_next_one_knows(
    engine: Engine, home: Path, calm: None
) -> None:
    async with running_services(engine, home) as services:
        gateway = services.gateway
        first = await spec_now(services)
        assert first.batch == 512, "prompt speed comes first"
        await gateway.load("demo")
        seen = known(services, first)
        assert (seen.status, set(seen.tokens_per_s)) == ("measured", SIZES)
        assert all(speed > 0 for speed in seen.tokens_per_s.values())
        assert gateway.supervisor.speeds.best(first.speed_key) == services.specs.speed(first)
    async with running_services(engine, home) as services:
        assert known(services, first) == seen
        assert (await spec_now(services)).speed_key == first.speed_key
        services.gateway.supervisor.speeds.compared(
            first.speed_key, Known("measured", dict.fromkeys(SIZES, 100.0))
        )
        assert (await spec_now(services)).batch == 64
        await services.gateway.load("demo")
        assert known(services, first).tokens_per_s == dict.fromkeys(SIZES, 100.0), "asked again"


@pytest.mark.parametrize("write", [write_recurrent, write_sliding])
async def test_models_that_forget_are_compared_too(
    engine: Engine, home: Path, calm: None, write: Callable[[Path], Path]
) -> None:
    write(home / "models" / "forgets" / "forgets.gguf")
    async with running_services(engine, home) as services:
        await services.gateway.load("forgets")
        [instance] = services.gateway.supervisor
        seen = known(services, instance.spec)
        assert (seen.status, set(seen.tokens_per_s)) == ("measured", SIZES)


async def test_each_size_is_read_with_as_many_tokens_before_it(
    engine: Engine, home: Path, calm: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the smallest sizes would seem faster than they are with long prompts."""
    reads: list[tuple[int, int]] = []
    post = EngineClient.post

    async def noted(self: EngineClient, path: str, body: bytes, within_s: float) -> EngineAnswer:
        answer = await post(self, path, body, within_s)
        if path == "/completion":
            timings = orjson.loads(answer.body)["timings"]
            reads.append((timings["cache_n"], timings["prompt_n"]))
        return answer

    monkeypatch.setattr(EngineClient, "post", noted)
    monkeypatch.setattr(batch_comparison, "_MAX_ROUNDS", 1)
    async with running_services(engine, home) as services:
        await services.gateway.load("demo")
    round_ = reads[-(2 * len(SIZES) - 1) :]
    assert [size for _, size in round_] == [64, 128, 256, 512, 256, 128, 64]
    middles = {
        size: statistics.mean(before + size / 2 for before, read in round_ if read == size)
        for size in SIZES
    }
    assert len(set(middles.values())) == 1
    assert min(before for before, _ in round_) > 400, "prompts that nobody waits for"


async def test_a_busy_machine_is_noticed_and_the_next_load_compares_again(
    engine: Engine, home: Path, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_services(engine, home) as services:
        spec = await spec_now(services)
        with busy_cores():
            await services.gateway.load("demo")
        assert known(services, spec).status == "busy"
        assert (await spec_now(services)).batch == 512
        before = known(services, spec)
        await services.gateway.unload("demo")
        await services.gateway.load("demo")
        assert known(services, spec) is before, "not again at once"
        await services.gateway.unload("demo")
        monkeypatch.setattr(supervisor, "COMPARE_AGAIN_S", 0.0)
        await services.gateway.load("demo")
        assert known(services, spec) is not before


async def test_a_slow_engine_is_not_waited_for_and_learns_from_its_prompts(
    engine: Engine, home: Path, calm: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_comparison, "MAX_S", 1e-3)
    async with running_services(engine, home) as services:
        spec = await spec_now(services)
        await services.gateway.load("demo")
        assert known(services, spec) == Known("slow", {})
        model = await services.gateway.models.find("demo")
        answer = RawAnswer(services.gateway, RequestInfo(), model, PROMPT, {"max_tokens": 4}, None)
        finished = [event async for event in answer.events() if isinstance(event, Finished)]
        assert finished[0].usage.prompt_tokens >= 512
        assert known(services, spec).tokens_per_s, "it has learned"


async def test_an_engine_whose_answers_make_no_sense_is_loaded_all_the_same(
    engine: Engine, home: Path, calm: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        batch_comparison, "_plain_tokens", lambda vocabulary: range(10**9, 10**9 + 1)
    )
    async with running_services(engine, home) as services:
        await services.gateway.load("demo")
        [instance] = services.gateway.supervisor
        assert instance.state == "ready"
        assert services.gateway.supervisor.speeds.wants_comparison(instance.spec.speed_key)


async def test_embeddings_are_not_compared(engine: Engine, home: Path, calm: None) -> None:
    async with running_services(engine, home) as services:
        spec = (await services.gateway.planner.plan(InstanceKey("demo", "embed"))).spec
        assert spec.speed_key == ""
