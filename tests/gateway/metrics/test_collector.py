"""What one moment looks like when it is rendered: names, labels, and what does not exist."""

from __future__ import annotations

from typing import Any

import pytest

from myllm.errors import QueueFull
from myllm.gateway.metrics.collector import render
from myllm.gateway.metrics.engine_counts import EngineCounts
from myllm.gateway.metrics.engine_polls import EngineAnswers
from myllm.gateway.metrics.moment import Machine, Moment
from myllm.gateway.metrics.request_counts import RequestCounts
from myllm.gateway.snapshot import Snapshot
from myllm.launcher.devices import HOST, DeviceMemory, GpuReading
from myllm.supervisor.spec import InstanceKey
from tests.api.metrics import OPENMETRICS, Series, parsed, samples, series
from tests.gateway.metrics.test_request_counts import record

ODD = 'a "model"\\ of\nours'
GIB = 2**30
METRICS = b"""# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 16
# HELP llamacpp:n_tokens_max Largest observed sequence length
# TYPE llamacpp:n_tokens_max counter
llamacpp:n_tokens_max 18
# HELP llamacpp:requests_processing Number of requests processing
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 1
# HELP llamacpp:spec_decode_num_accepted_tokens_per_pos_total Accepted tokens per draft position
# TYPE llamacpp:spec_decode_num_accepted_tokens_per_pos_total counter
llamacpp:spec_decode_num_accepted_tokens_per_pos_total{position="0"} 7
llamacpp:spec_decode_num_accepted_tokens_per_pos_total{position="1"} 3
"""
SLOTS = b"""[{"id": 0, "n_ctx": 1000, "is_processing": true, "n_prompt_tokens": 500},
{"id": 1, "n_ctx": 1000, "is_processing": false, "n_prompt_tokens": 900},
{"id": 2, "n_ctx": 1000, "is_processing": true}]"""


def moment(**fields: Any) -> Moment:
    nothing = {
        "requests": RequestCounts(), "engines": EngineCounts(), "snapshot": Snapshot((), False),
        "on_disk": (), "shows_all": True, "answers": {}, "restores": {}, "budget_mb": {},
        "failures": {},
    }  # fmt: skip
    return Moment(**nothing | fields)


def shown(
    accept: str = "", gpus: dict[str, GpuReading] | None = None, **fields: Any
) -> dict[Series, float]:
    machine = Machine({HOST: DeviceMemory(2048, 1024)}, gpus or {})
    content, media_type = render(moment(**fields), machine, {"version": "1.0"}, accept)
    return samples(parsed(content.decode(), media_type))


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_an_empty_server_shows_itself_and_the_machine(accept: str) -> None:
    found = shown(accept)
    ours = {key: value for key, value in found.items() if key[0].startswith("myllm_")}
    assert ours == {
        series("myllm_build_info", version="1.0"): 1,
        series("myllm_host_memory_bytes"): 2 * GIB,
        series("myllm_host_memory_available_bytes"): GIB,
    }
    assert series("process_cpu_seconds_total") in found


def test_gpus_as_far_as_they_report() -> None:
    readings = {
        "CUDA0": GpuReading(80 * GIB, 20 * GIB, 0.5, 300.5, 64),
        "CUDA1": GpuReading(24 * GIB, 0, None, None, None),
    }
    found = shown(gpus=readings)
    gpu = {key: value for key, value in found.items() if key[0].startswith("myllm_gpu_")}
    assert gpu == {
        series("myllm_gpu_memory_bytes", device="CUDA0"): 80 * GIB,
        series("myllm_gpu_memory_bytes", device="CUDA1"): 24 * GIB,
        series("myllm_gpu_memory_used_bytes", device="CUDA0"): 20 * GIB,
        series("myllm_gpu_memory_used_bytes", device="CUDA1"): 0,
        series("myllm_gpu_utilization_ratio", device="CUDA0"): 0.5,
        series("myllm_gpu_power_watts", device="CUDA0"): 300.5,
        series("myllm_gpu_temperature_celsius", device="CUDA0"): 64,
    }


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_the_engines_own_metrics_get_the_models_labels(accept: str) -> None:
    answers = {
        InstanceKey("demo", "generate"): EngineAnswers(METRICS, SLOTS),
        InstanceKey("demo", "embed"): EngineAnswers(METRICS.replace(b"16", b"17"), b"[]"),
    }
    found = shown(accept, answers=answers)
    generate, embed = ({"model_name": "demo", "role": role} for role in ("generate", "embed"))
    total = "llamacpp_prompt_tokens_total"
    assert (found[series(total, **generate)], found[series(total, **embed)]) == (16, 17)
    assert found[series("llamacpp_n_tokens_max", **generate)] == 18
    assert found[series("llamacpp_requests_processing", **embed)] == 1
    positions = "llamacpp_spec_decode_num_accepted_tokens_per_pos_total"
    assert found[series(positions, **generate, position="1")] == 3
    usage = "myllm_kv_cache_usage_perc"
    assert found[series(usage, **generate)] == pytest.approx(1 / 6)  # idle slots do not count
    assert found[series(usage, **embed)] == 0


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_a_models_name_may_have_any_characters(accept: str) -> None:
    requests = RequestCounts()
    requests.request_ended(record(model=InstanceKey(ODD, "generate")))
    tokens = series("myllm_prompt_tokens_total", model_name=ODD, role="generate")
    assert shown(accept, requests=requests)[tokens] == 30


def test_a_client_sees_no_model_outside_its_scope() -> None:
    requests, other = RequestCounts(), InstanceKey("other", "generate")
    requests.request_ended(record())
    requests.request_ended(record(model=other))
    requests.request_ended(record(error=QueueFull("full"), model=None, status=429))
    found = shown(requests=requests, on_disk=(other,), shows_all=False)
    names = {dict(labels)["model_name"] for _, labels in found if "model_name" in dict(labels)}
    assert names == {"other", ""}


def test_states_of_models_on_disk() -> None:
    key = InstanceKey("demo", "rerank")
    found = shown(on_disk=(key,))
    states = {
        dict(labels)["state"]: value
        for (name, labels), value in found.items()
        if name == "myllm_model_state"
    }
    assert states.pop("unloaded") == 1
    assert set(states.values()) == {0}


def test_background_errors_restores_and_budgets() -> None:
    restored = (InstanceKey("demo", "generate"), "restored")
    found = shown(failures={"retention": 2}, restores={restored: 3}, budget_mb={"CUDA0": 1024})
    assert found[series("myllm_background_errors_total", task="retention")] == 2
    labels = {"model_name": "demo", "role": "generate", "result": "restored"}
    assert found[series("myllm_kv_restores_total", **labels)] == 3
    assert found[series("myllm_memory_budget_bytes", device="CUDA0")] == GIB
