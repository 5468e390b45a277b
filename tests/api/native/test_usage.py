"""`GET /api/usage`: sums by key, model and day, also of what is not stored yet."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.api.events import detail, post
from tests.serving import Serving, serving, short_home


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as home, serving(home, threads=1) as running:
        body = {"model": "demo", "prompt": "The sea", "options": {"max_tokens": 4}}
        with running.client() as api:
            for _ in range(3):
                post(api, "/api/generate", **body, stream=False)
            assert api.post("/api/generate", json=body | {"model": "no-such"}).status_code == 404
            too_long = body | {"prompt": "word " * 5000}
            assert api.post("/api/generate", json=too_long).status_code == 400
            api.post("/tokenize", json={"model": "demo", "content": "The sea"}).raise_for_status()
        yield running


def usage(api: httpx.Client, **query: str) -> Any:
    answer = api.get("/api/usage", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_by_model_without_any_parameter(api: httpx.Client) -> None:
    found = usage(api)
    [demo] = found["usage"]
    assert demo.pop("model") == "demo"
    assert found["total"] == demo
    assert 0 < demo.pop("slot_seconds") < 60
    assert demo == {
        "requests": 4,
        "prompt_tokens": 15,
        "cached_tokens": demo["cached_tokens"],
        "generated_tokens": 12,
        "errors": 1,
    }
    assert found["by"] == "model"
    assert found["since"] < found["until"]


def test_by_day_and_by_key(api: httpx.Client) -> None:
    days = usage(api, by="day")["usage"]
    today = datetime.now(UTC).date()
    assert {each["day"] for each in days} <= {str(today), str(today - timedelta(days=1))}
    assert sum(each["requests"] for each in days) == 4
    assert [(each["key"], each["requests"]) for each in usage(api, by="key")["usage"]] == [("", 4)]


def test_what_is_left_out(api: httpx.Client) -> None:
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
    for query, requests in [
        ({"model": "demo"}, 4),
        ({"model": "demo:latest"}, 4),
        ({"model": "gone"}, 0),
        ({"key": ""}, 4),
        ({"key": "ann"}, 0),
        ({"since": yesterday}, 4),
        ({"since": "2020-01-01T00:00:00Z", "until": tomorrow}, 4),
        ({"since": tomorrow}, 0),
        ({"since": "2020-01-01", "until": yesterday}, 0),
        ({"since": "1ms"}, 4),  # whole hours
        ({"since": "876000h", "until": "2h"}, 0),
    ]:
        assert usage(api, **query)["total"]["requests"] == requests, query


@pytest.mark.parametrize("text", ["soon", "-1", "-7d", "2026-13-01", "1e999", "9" * 200, ""])
def test_a_time_that_makes_no_sense_is_refused(api: httpx.Client, text: str) -> None:
    for name in ("since", "until"):
        said = detail(api.get("/api/usage", params={name: text}), 400)
        assert name in said


@pytest.mark.parametrize(
    "query", [{"by": "colour"}, {"key": "a\0"}, {"model": "\0"}, {"key": "x" * 5000}]
)
def test_a_parameter_that_makes_no_sense_is_refused(
    api: httpx.Client, query: dict[str, str]
) -> None:
    assert next(iter(query)) in detail(api.get("/api/usage", params=query), 400)


def test_a_restarted_server_has_the_same_usage(engine: Engine) -> None:
    body = {"model": "demo", "prompt": "The sea", "options": {"max_tokens": 4}, "stream": False}
    with short_home() as home:
        totals = []
        for _ in range(2):
            with serving(home, threads=1) as running, running.client() as api:
                post(api, "/api/generate", **body)
                began = time.monotonic()
                while (total := usage(api)["total"])["requests"] <= len(totals):
                    assert time.monotonic() - began < 10
                totals.append(total)
    assert [each["requests"] for each in totals] == [1, 2]
    assert totals[1]["generated_tokens"] == 8
