"""Specs from the machine's own memory and from the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from myllm.cpus import machine_cores
from myllm.engine.engine import Engine
from myllm.launcher.devices import HOST, DeviceMemory
from myllm.launcher.local.devices import read_devices
from myllm.models.memory_estimate import kv_bytes
from myllm.models.registry import Registry
from myllm.settings import Settings
from myllm.supervisor.prompt_speeds import Known, PromptSpeeds
from myllm.supervisor.spec import InstanceKey, Layout, Role, main_role
from myllm.supervisor.spec_builder import SpecBuilder
from tests.control_groups import cpu_quota, run_inside
from tests.ggufs import write_header
from tests.projectors import write_projector

CPU = Engine(Path("llama-server"), "cache", "0", 0, "", ("CPU",))
CUDA = Engine(Path("llama-server"), "cache", "0", 0, "", ("CPU", "CUDA"))
KEY = InstanceKey("demo", "generate")


class OneGpu:
    """A GPU of 24 GB that nobody uses."""

    def memory(self) -> dict[str, DeviceMemory]:
        return {"CUDA0": DeviceMemory(24000, 24000)}

    def used_mb(self, pid: int) -> dict[str, int]:
        return {}

    def is_working(self, pid: int) -> bool:
        return False


def specs(
    folder: Path, gpu: bool = False, used: Mapping[str, int] | None = None, **given: int
) -> SpecBuilder:
    settings = Settings(_env_file=None, **given)  # type: ignore[arg-type,call-arg]
    engine, gpus = (CUDA, OneGpu()) if gpu else (CPU, None)
    speeds = PromptSpeeds(folder / "speeds")
    return SpecBuilder(settings, engine, speeds, lambda: read_devices(gpus), lambda: used or {})


def test_an_automatic_context_can_be_made_smaller_and_another_not(tmp_path: Path) -> None:
    demo = Registry(tmp_path).get("demo")
    automatic = specs(tmp_path)
    spec, less = (automatic.spec(KEY, demo, smaller) for smaller in (False, True))
    assert (spec.context_size, spec.slots, spec.automatic_context) == (2048, 4, True)
    assert (less.context_size, less.slots) == (1024, 4)
    said = specs(tmp_path, context_size=1024).spec(KEY, demo, smaller=True)
    assert (said.context_size, said.automatic_context) == (1024, False)


def test_a_small_budget_makes_a_small_instance(tmp_path: Path) -> None:
    write_header(tmp_path / "m" / "m.gguf", embedding_length=4096, block_count=32)
    model = Registry(tmp_path).get("m")
    key = InstanceKey("m", "generate")
    wide = specs(tmp_path, memory_budget_mb=100_000).spec(key, model)
    tight = specs(tmp_path, memory_budget_mb=1).spec(key, model)
    assert (wide.slots, tight.slots) == (4, 1)


def test_a_gpu_takes_all_layers_and_an_embedding_too(tmp_path: Path) -> None:
    demo = Registry(tmp_path).get("demo")
    layout = Layout(("CUDA0",), demo.header.layers + 1)
    on_gpu = specs(tmp_path, gpu=True)
    assert on_gpu.spec(KEY, demo).layout == layout
    assert on_gpu.spec(InstanceKey("demo", "embed"), demo).layout == layout
    assert specs(tmp_path).spec(KEY, demo).layout == Layout()


def test_a_projector_goes_with_what_generates(tmp_path: Path) -> None:
    write_header(tmp_path / "m" / "m.gguf")
    write_projector(tmp_path / "m" / "mmproj.gguf")
    model, made = Registry(tmp_path).get("m"), specs(tmp_path)
    spec = made.spec(InstanceKey("m", "generate"), model)
    arguments = spec.argv(Path("llama-server"))
    assert arguments[arguments.index("--mmproj") + 1] == str(tmp_path / "m" / "mmproj.gguf")
    without = made.spec(InstanceKey("m", "generate"), replace(model, projector=None))
    assert spec.state_key != without.state_key
    embedding = made.spec(InstanceKey("m", "embed"), model)
    assert "--mmproj" not in embedding.argv(Path("llama-server"))


@pytest.mark.parametrize(
    ("architecture", "pooling", "role", "flags"),
    [
        ("qwen3", None, "generate", ()),
        ("qwen3", None, "embed", ("--embeddings", "--pooling", "mean")),
        ("qwen3", 3, "embed", ("--embeddings",)),
        ("bert", None, "embed", ("--embeddings", "--pooling", "mean")),
        ("bert", 4, "rerank", ("--reranking",)),
        ("qwen3", 4, "rerank", ("--reranking",)),
    ],
)
def test_what_a_model_is_for_and_how_its_engine_is_told(
    tmp_path: Path, architecture: str, pooling: int | None, role: Role, flags: tuple[str, ...]
) -> None:
    write_header(tmp_path / "m" / "m.gguf", architecture, pooling_type=pooling)
    model = Registry(tmp_path).get("m")
    assert main_role(model) == ("generate" if architecture != "bert" and not pooling else role)
    spec = specs(tmp_path).spec(InstanceKey("m", role), model)
    argv = spec.argv(Path("llama-server"))
    about = [each for each in argv if each in ("--embeddings", "--pooling", "mean", "--reranking")]
    assert tuple(about) == flags
    assert (spec.batch == spec.context_size == 2048) == (role != "generate")


@pytest.mark.parametrize(
    ("architecture", "fields", "slots"),
    [
        ("bert", {}, 16),
        ("qwen3", {}, 4),
        ("qwen3", {"block_count": 128, "attention__head_count_kv": 8}, 2),  # 128 MiB for each
        ("gemma3", {"attention__sliding_window": 384}, 1),
        ("mamba", {}, 1),
    ],
)
def test_inputs_share_a_batch_where_that_takes_little_memory(
    tmp_path: Path, architecture: str, fields: dict[str, int], slots: int
) -> None:
    write_header(tmp_path / "m" / "m.gguf", architecture, **fields)
    model = Registry(tmp_path).get("m")
    spec = specs(tmp_path).spec(InstanceKey("m", "embed"), model)
    assert spec.slots == slots
    large = replace(model, header=replace(model.header, tensor_bytes=8 * 2**30))
    more = specs(tmp_path).spec(InstanceKey("m", "embed"), large)
    assert more.slots == (4 if architecture == "qwen3" else slots)


def test_more_inputs_of_an_encoder_take_no_more_memory(tmp_path: Path) -> None:
    write_header(tmp_path / "m" / "m.gguf", "bert")
    header = Registry(tmp_path).get("m").header
    assert kv_bytes(header, 512, 16) == 0


def test_what_the_engines_have_can_be_had_by_others(tmp_path: Path) -> None:
    used = {"CUDA0": 5000, HOST: 0}
    each = specs(tmp_path, gpu=True, used=used, gpu_budget_mb=8000).headroom()["CUDA0"]
    assert (each.budget_mb, each.obtainable_mb, each.free_mb) == (8000, 8000, 3000)


def threads(folder: Path, parameters: int, option: str = "--threads", **given: int) -> str | None:
    """What llama-server gets as `option` for a model of that many parameters."""
    demo = Registry(folder).get("demo")
    model = replace(demo, header=replace(demo.header, parameter_count=parameters))
    argv = specs(folder, **given).spec(KEY, model).argv(Path("llama-server"))
    return argv[argv.index(option) + 1] if option in argv else None


@pytest.mark.parametrize(
    ("usable", "parameters", "expected"),
    [
        (8, 100_000_000_000, None),
        (7, 100_000_000_000, "7"),
        (1, 100_000_000_000, "1"),
        (8, 100_000_000, "2"),
        (1, 100_000_000, "1"),
        (8, 1_000, "1"),
    ],
)
def test_threads_by_what_is_usable_of_eight_cores(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    usable: int,
    parameters: int,
    expected: str | None,
) -> None:
    monkeypatch.setattr("myllm.supervisor.spec_builder.machine_cores", lambda: 8)
    monkeypatch.setattr("myllm.supervisor.spec_builder.usable_cores", lambda: usable)
    assert threads(tmp_path, parameters) == expected
    assert threads(tmp_path, parameters, threads=5) == "5"


@pytest.mark.parametrize(
    ("usable", "parameters", "expected"),
    [
        (8, 1_100_000_000, None),
        (8, 135_000_000, "8"),
        (4, 135_000_000, "4"),
        (2, 135_000_000, None),
        (8, 20_000_000, "4"),
        (8, 2_900_000, None),
    ],
)
def test_prompts_of_a_small_model_are_read_by_more_threads_than_write_its_answers(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    usable: int,
    parameters: int,
    expected: str | None,
) -> None:
    monkeypatch.setattr("myllm.supervisor.spec_builder.machine_cores", lambda: 8)
    monkeypatch.setattr("myllm.supervisor.spec_builder.usable_cores", lambda: usable)
    assert threads(tmp_path, parameters, "--threads-batch") == expected
    assert threads(tmp_path, parameters, "--threads-batch", threads=5) is None


@pytest.mark.needs_cpu_quota
def test_an_engine_in_a_container_with_one_cpu_gets_one_thread(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from tests.supervisor.test_spec_builder import threads; "
        f"print(threads(Path({str(tmp_path)!r}), 100_000_000_000))"
    )
    with cpu_quota(1) as procs:
        # A machine of one core is not limited; llama-server chooses the same by itself.
        assert run_inside(procs, code) == ("1" if machine_cores() > 1 else "None")


def test_the_speed_of_reading_depends_on_model_engine_machine_and_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = Registry(tmp_path).get("demo")
    keys = {
        specs(tmp_path).spec(KEY, demo).speed_key,
        specs(tmp_path, threads=7).spec(KEY, demo).speed_key,
        specs(tmp_path, gpu=True).spec(KEY, demo).speed_key,
        specs(tmp_path).spec(KEY, replace(demo, header=replace(demo.header, digest="x"))).speed_key,
    }
    monkeypatch.setattr("myllm.supervisor.spec_builder.cpu_identity", lambda: "another CPU")
    keys.add(specs(tmp_path).spec(KEY, demo).speed_key)
    assert len(keys) == 5
    server = tmp_path / "llama-server"
    builds = set()
    for content in ("compiled", "compiled anew"):
        server.write_text(content)
        builds.add(replace(CPU, server=server).identity)
    assert len(builds) == 2, "two builds that call themselves the same"


def test_a_model_of_unknown_speed_is_read_in_the_largest_batches(tmp_path: Path) -> None:
    demo = Registry(tmp_path).get("demo")
    assert specs(tmp_path).spec(KEY, demo).batch == 512
    on_gpu = specs(tmp_path, gpu=True).spec(KEY, demo)
    assert (on_gpu.batch, on_gpu.physical_batch) == (1024, 512), "half of its context"
    small = specs(tmp_path, gpu=True, context_size=512).spec(KEY, demo)
    assert small.batch == 256


def test_what_replaces_a_crashed_engine_reads_in_equal_batches(tmp_path: Path) -> None:
    """Whatever was measured meanwhile: the answer that was cut is to go on as it began."""
    demo = Registry(tmp_path).get("demo")
    settings, speeds = Settings(_env_file=None), PromptSpeeds(tmp_path / "speeds")  # type: ignore[call-arg]
    made = SpecBuilder(settings, CPU, speeds, lambda: read_devices(None), dict)
    first = made.spec(KEY, demo)
    speeds.compared(first.speed_key, Known("measured", {512: 100.0, 256: 200.0, 128: 50.0}))
    for crashed, batch in ((True, 512), (False, 256)):
        made.ended(first, crashed)
        assert [made.spec(KEY, demo).batch for _ in range(2)] == [batch] * 2
