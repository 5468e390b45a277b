"""Traces as a collector gets them, from a real server over OpenTelemetry's protocol."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from structlog.testing import capture_logs

from myllm.engine.engine import Engine
from myllm.gateway.observers.tracing import configured_spans
from tests.api.events import post, stream
from tests.gateway.observers.collector import Collector, attributes, collecting
from tests.serving import Serving, environment, serving, wait_until

CHAT = {"model": "demo", "messages": [{"role": "user", "content": "What can you do?"}]}
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture(scope="module")
def server(engine: Engine, collector: Collector) -> Iterator[Serving]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in collector.environment().items():
            patch.setenv(name, value)
        patch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=tests")
        patch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=blue")
        patch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        from tests.serving import short_home

        with short_home() as home, serving(home) as running:
            yield running


def received(collector: Collector, request_id: str) -> Span:
    """The span of this request, and with it those below it."""

    def mine() -> list[Span]:
        spans = collector.requests()
        return [each for each in spans if attributes(each)["myllm.request_id"] == request_id]

    wait_until(lambda: bool(mine()), 10, "the trace")
    [span] = mine()
    return span


def test_a_chat_from_its_queue_to_its_answer(
    server: Serving, api: httpx.Client, collector: Collector
) -> None:
    before = time.time_ns()
    with api.stream("POST", "/api/chat", json=CHAT) as answer:
        *_, last = (line for line in answer.iter_lines() if line.startswith("data: "))
    after, usage = time.time_ns(), httpx.Response(200, text=last.removeprefix("data: ")).json()
    request_id = answer.headers["x-request-id"]
    request = received(collector, request_id)
    known = attributes(request)
    assert request.name == "POST /api/chat"
    assert request.trace_id.hex() == request_id
    assert not request.parent_span_id
    assert (
        known
        | {
            "http.request.method": "POST",
            "http.route": "/api/chat",
            "url.path": "/api/chat",
            "http.response.status_code": 200,
            "client.address": "127.0.0.1",
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "myllm",
            "gen_ai.request.model": "demo",
            "gen_ai.response.model": "demo",
            "gen_ai.usage.input_tokens": usage["usage"]["prompt_tokens"],
            "gen_ai.usage.output_tokens": usage["usage"]["completion_tokens"],
            "gen_ai.usage.cache_read.input_tokens": usage["usage"]["cached_tokens"],
            "gen_ai.response.finish_reasons": [usage["finish_reason"]],
        }
        == known
    )
    assert 0 < known["gen_ai.response.time_to_first_chunk"] < (after - before) / 1e9
    below = collector.trace(request)
    assert set(below) == {"queue", "load", "prompt", "answer"}
    for name, parent in (("queue", request), ("prompt", request), ("answer", request)):
        assert below[name].parent_span_id == parent.span_id
    assert below["load"].parent_span_id == below["queue"].span_id
    moments = [before, request.start_time_unix_nano]
    for name in ("queue", "prompt", "answer"):
        moments += [below[name].start_time_unix_nano, below[name].end_time_unix_nano]
    moments += [request.end_time_unix_nano]
    assert moments == sorted(moments)
    assert f'"trace_id":"{request_id}"' in server.log


def test_where_traces_come_from(api: httpx.Client, collector: Collector) -> None:
    post(api, "/api/models/demo/load")
    wait_until(lambda: bool(collector.resources), 10, "a trace")
    resource = collector.resources[-1]
    assert resource["service.name"] == "myllm"
    assert resource["deployment.environment.name"] == "tests"
    assert collector.headers[-1]["x-team"] == "blue"


@pytest.mark.parametrize(
    ("path", "body", "operation"),
    [
        ("/api/generate", {"prompt": "Hi", "stream": False}, "text_completion"),
        ("/v1/completions", {"prompt": "Hi", "max_tokens": 2}, "text_completion"),
        ("/v1/chat/completions", {"messages": CHAT["messages"]}, "chat"),
        ("/v1/messages", {"messages": CHAT["messages"], "max_tokens": 2}, "chat"),
        ("/ollama/api/chat", {"messages": CHAT["messages"], "stream": False}, "chat"),
        ("/v1/embeddings", {"input": "Hi"}, "embeddings"),
    ],
)
def test_the_operation_of_each_route(
    api: httpx.Client, collector: Collector, path: str, body: dict[str, object], operation: str
) -> None:
    answer = api.post(path, json={"model": "demo", **body})
    assert answer.status_code == 200, answer.text
    request = received(collector, answer.headers["x-request-id"])
    assert request.name == f"POST {path}"
    assert attributes(request)["gen_ai.operation.name"] == operation


def test_a_request_continues_its_clients_trace(
    server: Serving, api: httpx.Client, collector: Collector
) -> None:
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "X-Request-ID": "continues"}
    assert api.post("/api/chat", json={**CHAT, "stream": False}, headers=headers).is_success
    request = received(collector, "continues")
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, SPAN)
    assert f'"trace_id":"{TRACE}"' in server.log


def test_a_trace_that_its_client_does_not_record_is_not_sent(
    api: httpx.Client, collector: Collector
) -> None:
    for flags, request_id in (("00", "unrecorded"), ("01", "recorded")):
        headers = {"traceparent": f"00-{TRACE}-{SPAN}-{flags}", "X-Request-ID": request_id}
        assert api.get("/api/models", headers=headers).is_success
    received(collector, "recorded")
    assert "unrecorded" not in [attributes(s)["myllm.request_id"] for s in collector.requests()]


def test_refusals_and_failures(api: httpx.Client, collector: Collector) -> None:
    answer = api.post("/api/chat", json={**CHAT, "model": "nowhere"})
    request = received(collector, answer.headers["x-request-id"])
    known = attributes(request)
    assert known["error.type"] == "ModelNotFound"
    assert known["http.response.status_code"] == 404
    assert "gen_ai.operation.name" not in known
    assert request.status.code == Status.STATUS_CODE_UNSET
    assert collector.trace(request) == {}


def test_monitors_make_no_traces(api: httpx.Client, collector: Collector) -> None:
    for path in ("/health", "/health/live", "/health/ready", "/api/models"):
        api.get(path, headers={"X-Request-ID": f"monitor{path.replace('/', ':')}"})
    received(collector, "monitor:api:models")
    assert [s for s in collector.requests() if "health" in s.name] == []


def test_a_resume_is_an_event(server: Serving, api: httpx.Client, collector: Collector) -> None:
    body = {"model": "demo", "prompt": "Once", "options": {"max_tokens": 400, "seed": 1}}
    with api.stream("POST", "/api/generate", json=body) as answer:
        lines = answer.iter_lines()
        next(line for line in lines if line.startswith("data: "))
        for process in server.engines():
            process.send_signal(signal.SIGKILL)
        assert '"done":true' in list(filter(None, lines))[-1].replace(" ", "")
    request = received(collector, answer.headers["x-request-id"])
    [event] = request.events
    assert event.name == "resumed"
    assert request.start_time_unix_nano < event.time_unix_nano < request.end_time_unix_nano


def test_no_prompt_and_no_answer_is_sent(api: httpx.Client, collector: Collector) -> None:
    tokens, _ = stream(api, "/api/chat", **CHAT)
    headers = {"X-Request-ID": "private"}
    assert api.post("/api/chat", json={**CHAT, "stream": False}, headers=headers).is_success
    received(collector, "private")
    sent = str(collector.spans)
    assert "What can you do" not in sent
    assert "".join(tokens)[:20] not in sent


def test_a_collector_that_does_not_answer_delays_nothing(
    engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting(delay_s=60) as slow:
        for name, value in slow.environment().items():
            monkeypatch.setenv(name, value)
        with serving(home, drain_grace=0.5, stop_grace=0.5) as server, server.client(5) as api:
            for _ in range(20):
                assert api.get("/api/models").is_success
            began = time.monotonic()
            os.kill(server.process.pid, signal.SIGTERM)
            assert server.process.wait(20) == 0
            assert time.monotonic() - began < 10
            assert "the last traces may be lost" in server.log


def test_the_last_traces_are_sent_when_the_server_stops(
    engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting() as late:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{late.url}/v1/traces")
        with serving(home) as server, server.client() as api:
            assert api.get("/api/models").is_success
            assert late.spans == []  # they are sent every five seconds
        assert [span.name for span in late.spans] == ["GET /api/models"]


def test_without_the_extra_one_line_says_so(
    engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with (
        serving(home, module="tests.gateway.observers.without_otel") as server,
        server.client() as api,
    ):
        assert api.get("/api/models").is_success
        [line] = [each for each in server.log.splitlines() if "traces are off" in each]
        assert "pip install 'myllm[otel]'" in line


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": " "},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "True"},
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://[::1]:9", "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_SERVICE_NAME": "myllm", "OTEL_TRACES_EXPORTER": "otlp"},
    ],
)
def test_traces_are_off_unless_a_collector_is_named(variables: dict[str, str]) -> None:
    with capture_logs() as events:
        assert configured_spans(variables) is None
    assert events == []


def test_another_protocol_is_named_in_the_log() -> None:
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    with capture_logs() as events:
        assert configured_spans(variables) is None
    assert "grpc" in events[0]["cause"]


def test_a_wrong_variable_does_not_stop_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")
    with capture_logs() as events:
        spans = configured_spans()
    assert (spans is None) == (events[-1]["event"] == "traces are off")


def test_when_off_the_extra_is_not_imported(home: Path) -> None:
    names = "{name for name in sys.modules if name.startswith('opentelemetry.')}"
    script = f"import sys, myllm.app; print(*sorted({names}))"
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(home), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not re.search(r"opentelemetry\.(sdk|exporter|proto)", done.stdout)
