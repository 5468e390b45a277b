"""The line in the log for each request."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from myllm.errors import QueueFull
from myllm.gateway.observers.event_log import EventLog
from myllm.gateway.request_record import RequestRecord
from myllm.supervisor.spec import InstanceKey
from tests.gateway.observers.records import ID, answered, ended

SHORT = {"method": "POST", "path": "/api/chat", "status": 200, "client": "192.0.2.1", "ms": 2500.0}
CLIENTS_TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


def line(record: RequestRecord, shows_traces: bool = False) -> dict[str, Any]:
    """The fields of the only line for a request."""
    with capture_logs() as events:
        EventLog(shows_traces).request_ended(record)
    [event] = events
    assert event.pop("event") == "request"
    return dict(event)


def test_an_answer_has_all_fields() -> None:
    assert line(answered(deaths=1, left_out=2)) == SHORT | {
        "log_level": "info",
        "client": "ann",
        "model": "demo",
        "queued_ms": 500.0,
        "load_ms": 250.0,
        "first_token_ms": 1250.0,
        "prompt_tokens": 20,
        "cached_tokens": 5,
        "generated_tokens": 11,
        "tokens_per_s": 10.0,
        "finish": "stop",
        "resumed": 1,
        "left_out": 2,
    }


def test_what_did_not_happen_is_left_out() -> None:
    assert line(ended()) == SHORT | {"log_level": "info"}
    vector = answered(
        model=InstanceKey("demo", "embed"), load_s=0.0, cached_tokens=0, generated_tokens=0,
        finish_reason=None, last_token_at=None,
    )  # fmt: skip
    assert set(line(vector)) - set(SHORT) - {"log_level"} == {
        *("model", "queued_ms", "first_token_ms", "prompt_tokens")
    }
    assert line(vector)["model"] == "demo (embed)"


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (QueueFull("too many wait"), "QueueFull"),
        (ValueError("of the server"), "ValueError"),
        (asyncio.CancelledError(), "client left"),
        (GeneratorExit(), "client left"),
    ],
)
def test_an_error_is_a_word_without_what_the_client_sent(error: BaseException, word: str) -> None:
    assert line(ended(status=429, error=error))["error"] == word


def test_a_trace_is_named_if_it_is_the_clients_or_sent() -> None:
    assert "trace_id" not in line(ended())
    assert line(ended(), shows_traces=True)["trace_id"] == ID
    assert line(ended(traceparent=CLIENTS_TRACE))["trace_id"] == "a" * 32
    assert "trace_id" not in line(ended(traceparent="not one"))


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/metrics"])
def test_a_monitor_is_not_worth_a_line(path: str) -> None:
    assert line(ended(path=path))["log_level"] == "debug"
