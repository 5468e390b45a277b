"""`/metrics` before and after a known load, with a real engine."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from myllm.engine.engine import Engine
from myllm.sessions.keys import KeyRules
from tests.api.credentials import ANN, BOB, bearer
from tests.api.events import detail, parse, post, stream
from tests.api.metrics import OPENMETRICS, Series, counts, demo, families, grown, samples, series
from tests.api.native.test_cancel import SOON_S, WITHOUT_END, Leaving
from tests.keys import add_key, add_keys
from tests.serving import Serving, serving, short_home, wait_until

POLLED_S = 20.0
ADMIN, SCOPED = "admin-key-0123456789", "scoped-key-0123456789"
SECRETS = (ANN, BOB, ADMIN, SCOPED)
OPTIONS = {"temperature": 0, "seed": 3}
MODEL_REQUEST = ("e2e_request_latency_seconds", "request_queue_time_seconds")
TEXT = (
    "time_to_first_token_seconds", "request_prefill_time_seconds", "request_decode_time_seconds",
    "request_generation_tokens",
)  # fmt: skip


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as path, serving(path, slots=2, threads=1) as running:
        yield running


class Load:
    """Sends requests, and adds up what the counts must grow by."""

    def __init__(self, api: httpx.Client) -> None:
        self.expected: Counter[Series] = Counter()
        self._api = api

    def add(self, name: str, by: int = 1, **labels: str) -> None:
        self.expected[demo(f"myllm_{name}", **labels)] += by

    def http(self, handler: str, status: int = 200, method: str = "POST") -> None:
        """Expect an HTTP request, and nothing else of it."""
        labels = {"handler": handler, "method": method}
        requests = series("myllm_http_requests_total", **labels, status=str(status))
        self.expected[requests] += 1
        self.expected[series("myllm_http_request_duration_seconds_count", **labels)] += 1

    def request(self, usage: dict[str, int], reason: str, role: str = "generate") -> None:
        """Expect an answered request for the demo model, whose client got `usage`."""
        self.add("request_success_total", finished_reason=reason, role=role)
        for name in MODEL_REQUEST + (TEXT if role == "generate" else ()):
            self.add(f"{name}_count", role=role)
        self.add("request_prompt_tokens_count", role=role)
        prompt, generated = usage["prompt_tokens"], usage.get("completion_tokens", 0)
        for name in ("prompt_tokens_total", "prefix_cache_queries_total"):
            self.add(name, prompt, role=role)
        self.add("request_prompt_tokens_sum", prompt, role=role)
        self.add("prefix_cache_hits_total", usage.get("cached_tokens", 0), role=role)
        if role == "generate":
            self.add("generation_tokens_total", generated)
            self.add("request_generation_tokens_sum", generated)

    def failed(self, handler: str, status: int, error: str, body: dict[str, Any]) -> None:
        """Send a request that fails without a model, and expect its error."""
        answer = self._api.post(handler, json=body)
        assert answer.status_code == status, answer.text
        self.http(handler, status)
        kind = {"model_name": "", "role": "", "error_type": error}
        self.expected[series("myllm_request_errors_total", **kind)] += 1

    def gaps(self, after: dict[Series, float], before: dict[Series, float]) -> None:
        """Take the number of gaps as it is: how many tokens come at once is up to the engine."""
        gaps = demo("myllm_inter_token_latency_seconds_count")
        self.expected[gaps] += int(after[gaps] - before.get(gaps, 0))


def own_usage(of: dict[str, Any]) -> dict[str, int]:
    """Return the usage that an answer in OpenAI's form has, in our own."""
    usage = of["usage"]
    details = usage.get("prompt_tokens_details") or {}
    return {**usage, "cached_tokens": details.get("cached_tokens", 0)}


def send_all(load: Load, api: httpx.Client) -> None:
    """Send one request of each kind that is answered or refused at once."""
    plain = {"model": "demo", "options": OPTIONS, "max_tokens": 9}
    for _ in range(2):  # the second one finds its prompt in the cache
        got = post(api, "/api/generate", **plain, prompt="The weather is", stream=False)
        load.request(got["usage"], got["finish_reason"])
        load.http("/api/generate")
    _, end = stream(api, "/api/chat", **plain, messages=[{"role": "user", "content": "Hello"}])
    load.request(end["usage"], end["finish_reason"])
    load.http("/api/chat")
    asked = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
    got = post(api, "/v1/chat/completions", **asked, n=2)  # two tickets, one request
    load.request(own_usage(got), got["choices"][0]["finish_reason"])
    load.http("/v1/chat/completions")
    got = post(api, "/v1/embeddings", model="demo", input=["one text", "and another"])
    load.request(own_usage(got), "stop", role="embed")
    load.http("/v1/embeddings")
    post(api, "/tokenize", model="demo", content="a question to the engine alone")
    load.http("/tokenize")
    made_up = {"model": "made-up", "prompt": "x"}
    load.failed("/api/generate", 404, "ModelNotFound", made_up)
    load.failed("/api/generate", 400, "InvalidRequest", {"model": "demo", "prompt": 7})
    assert api.request("LOCK", "/made-up").status_code == 404
    load.http("unknown", 404, method="other")
    assert api.get("/api/models/demo").status_code == 200
    load.http("/api/models/{name}", method="GET")


def scraped(api: httpx.Client, load: Load, accept: str) -> dict[Series, float]:
    found = counts(families(api, accept))
    load.http("/metrics", method="GET")
    return found


def load_both_engines(api: httpx.Client) -> None:
    post(api, "/api/generate", model="demo", prompt="x", max_tokens=1, stream=False)
    post(api, "/api/embeddings", model="demo", input="x")


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_every_count_after_a_known_load(api: httpx.Client, accept: str) -> None:
    load_both_engines(api)
    load = Load(api)
    before = scraped(api, load, accept)
    send_all(load, api)
    after = counts(families(api, accept))
    load.gaps(after, before)
    assert grown(before, after) == +load.expected


def test_an_engine_that_is_killed_and_an_answer_that_goes_on(
    server: Serving, api: httpx.Client
) -> None:
    load_both_engines(api)
    load = Load(api)
    before = scraped(api, load, "")
    body = {"model": "demo", "prompt": "Numbers:", "format": WITHOUT_END, "max_tokens": 400}
    events: list[dict[str, Any]] = []
    with api.stream("POST", "/api/generate", json=body) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                events.append(parse(line))
                if len(events) == 3:
                    for process in server.engines():
                        process.send_signal(signal.SIGKILL)
    load.request(events[-1]["usage"], events[-1]["finish_reason"])
    load.http("/api/generate")
    load.add("streams_resumed_total")
    load.add("engine_restarts_total", reason="signal")
    load.add("model_loads_total", result="success")
    load.add("model_load_duration_seconds_count")
    after = counts(families(api))
    load.gaps(after, before)
    assert grown(before, after) == +load.expected


def test_a_client_that_leaves_counts_as_far_as_it_came(server: Serving, api: httpx.Client) -> None:
    load_both_engines(api)
    load = Load(api)
    before = scraped(api, load, "")
    numbers = {"prompt": "Numbers:", "format": WITHOUT_END, "max_tokens": 2000}
    client = Leaving(server, "/api/generate", model="demo", **numbers)
    client.read_until(b"data: ")
    client.leave()
    finished = demo("myllm_request_success_total", finished_reason="abort")

    def has_ended() -> bool:
        if counts(families(api))[finished] > before[finished]:
            return True
        load.http("/metrics", method="GET")
        return False

    wait_until(has_ended, SOON_S, "the end of the request")
    load.http("/metrics", method="GET")
    after = counts(families(api))
    generated = demo("myllm_generation_tokens_total")
    tokens = {
        "prompt_tokens": after[demo("myllm_prompt_tokens_total")]
        - before[demo("myllm_prompt_tokens_total")],
        "completion_tokens": after[generated] - before[generated],
    }
    load.request({key: int(value) for key, value in tokens.items()}, "abort")
    load.http("/api/generate")
    load.gaps(after, before)
    hits = demo("myllm_prefix_cache_hits_total")
    load.expected[hits] += int(after[hits] - before[hits])
    assert 0 < tokens["completion_tokens"] < 2000
    assert grown(before, after) == +load.expected


def test_what_the_engines_count_themselves(server: Serving, api: httpx.Client) -> None:
    """They are asked in the background, so it takes a moment until they show the last request."""
    api.post("/api/models/demo/unload", params={"force": True})
    usage = Counter[str]()
    for prompt in ("The weather is", "The weather was", "Tomorrow"):
        body = {"model": "demo", "prompt": prompt, "max_tokens": 9, "stream": False}
        usage.update(post(api, "/api/generate", **body)["usage"])

    def own() -> dict[str, float]:
        found = samples(family for family in families(api) if family.name.startswith("llamacpp_"))
        return {name: value for (name, _), value in found.items()}

    read = "llamacpp_prompt_tokens_total"
    wait_until(lambda: read in own(), POLLED_S, "counters of the engine")
    transport = httpx.HTTPTransport(uds=str(server.engine_socket()))
    with httpx.Client(transport=transport, base_url="http://engine") as engine:
        theirs = samples(text_string_to_metric_families(engine.get("/metrics").text))
    expected = {name.replace(":", "_"): value for (name, _), value in theirs.items()}
    expected["llamacpp_n_tokens_max"] = expected.pop("llamacpp_n_tokens_max_total")
    rates = ("llamacpp_prompt_tokens_seconds", "llamacpp_predicted_tokens_seconds")

    def is_up_to_date() -> bool:
        shown = own()
        assert shown.keys() == expected.keys()
        return all(shown[name] == expected[name] for name in expected if name not in rates)

    wait_until(is_up_to_date, POLLED_S, "the last request")
    assert own()[read] >= usage["prompt_tokens"] - usage["cached_tokens"]
    [gauge] = [each for each in families(api) if each.name == "llamacpp_n_tokens_max"]
    assert gauge.type == "gauge"


def test_states_memory_and_evictions(server: Serving, api: httpx.Client) -> None:
    load_both_engines(api)

    def state() -> str:
        [current] = [
            dict(labels)["state"]
            for (name, labels), value in samples(families(api)).items()
            if name == "myllm_model_state" and value == 1 and ("role", "generate") in labels
        ]
        return current

    assert state() == "ready"
    shown = samples(families(api))
    budget = shown[series("myllm_memory_budget_bytes", device="host")]
    for kind in ("predicted", "measured"):
        taken = shown[demo(f"myllm_engine_memory_{kind}_bytes", device="host")]
        assert 2**20 < taken < budget
    before = counts(families(api))
    post(api, "/api/models/demo/unload")
    assert state() == "unloaded"
    evicted = grown(before, counts(families(api)))
    assert evicted[demo("myllm_model_evictions_total", reason="unloaded")] == 1
    assert evicted[demo("myllm_model_evictions_total", role="embed", reason="unloaded")] == 1
    measured = demo("myllm_engine_memory_measured_bytes", device="host")
    assert measured not in samples(families(api))


def test_a_scrape_during_a_load(server: Serving, api: httpx.Client) -> None:
    """Neither waits for the other."""
    api.post("/api/models/demo/unload", params={"force": True})
    client = Leaving(server, "/api/generate", model="demo", prompt="x", max_tokens=1, stream=False)
    seen: list[str] = []

    def has_loaded() -> bool:
        shown = samples(families(api))
        seen.extend(
            dict(labels)["state"]
            for (name, labels), value in shown.items()
            if name == "myllm_model_state" and value == 1 and ("role", "generate") in labels
        )
        return seen[-1] == "ready"

    wait_until(has_loaded, 30, "the model is loaded")
    client.read_until(b"200 OK")
    assert "loading" in seen
    client.leave()


def test_it_takes_a_key_for_metrics_or_for_everything(engine: Engine) -> None:
    with short_home() as home:
        add_keys(home, "user", user=ANN)
        add_keys(home, "metrics", monitor=BOB)
        add_keys(home, "admin", admin=ADMIN)
        add_key(home, "scoped", SCOPED, KeyRules(role="metrics", models=("other",)))
        with serving(home) as server, server.client() as api:
            assert api.get("/metrics").status_code == 401
            assert detail(api.get("/metrics", headers=bearer(ANN)), 403)
            for key in (BOB, ADMIN):
                assert demo("myllm_model_state", state="unloaded") in seen(api, key)
            assert demo("myllm_model_state", state="unloaded") not in seen(api, SCOPED)
            assert not any(key in api.get("/metrics", headers=bearer(BOB)).text for key in SECRETS)


def seen(api: httpx.Client, key: str) -> dict[Series, float]:
    return samples(families(api, **bearer(key)))
