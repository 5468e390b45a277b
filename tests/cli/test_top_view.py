"""A frame fits the terminal, and says what it leaves out."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from myllm.cli.top_view import Seen, frame

HEALTH = {"version": "1", "uptime_seconds": 75.3, "active": 1, "queued": 2, "status": "healthy"}
HISTORY = {
    "times": [1, 2], "requests": [3, 4], "errors": [0, 1],
    "prompt_tokens_per_second": [10.0, 20.0], "generated_tokens_per_second": [1.0, 2.0],
    "first_token_seconds": {"median": [0.5, None], "p95": [0.5, None]},
    "memory": {"CUDA0": {"predicted_mb": [5, 6], "measured_mb": [7, 8]}},
    "gpu_utilization": {"CUDA0": [0.1, 0.42]},
}  # fmt: skip
DEVICE = {"budget_mb": None, "taken_mb": 6, "free_mb": 100}


def instance(number: int) -> dict[str, Any]:
    return {
        "model": f"model-{number}" + "-long" * 20, "role": "generate", "state": "loading",
        "progress": 0.42, "slots": {"busy": 1, "total": 4}, "queued": 2, "pid": 1,
        "memory": {"measured_mb": 1, "estimated_mb": 2}, "expires_at": None,
    }  # fmt: skip


def request(number: int, **more: Any) -> dict[str, Any]:
    return {
        "began_at": "2030-01-01T12:00:00.000+00:00", "key": None, "address": "::1",
        "model": f"asked-{number}", "path": "/api/chat", "status": None, "error": None,
        "wait_seconds": 0.5, "first_token_seconds": None, "seconds": 2.0,
    } | more  # fmt: skip


def seen(count: int, **more: Any) -> Seen:
    values: dict[str, Any] = {
        "url": "http://localhost:8000", "health": HEALTH, "history": HISTORY,
        "memory": {"host": DEVICE, "CUDA0": DEVICE},
        "instances": [instance(number) for number in range(count)],
        "running": [request(number) for number in range(count)],
        "failed": [request(n, status=500, error="It\x1b[2J broke. " * 30) for n in range(count)],
    } | more  # fmt: skip
    return Seen(**values)


def drawn(of: Seen, width: int = 80, height: int | None = 24) -> list[str]:
    out = Console(file=io.StringIO(), width=width, force_terminal=False, highlight=False)
    out.print(frame(of, width, height), soft_wrap=False)
    assert isinstance(out.file, io.StringIO)
    return [line.rstrip() for line in out.file.getvalue().splitlines()]


@pytest.mark.parametrize("count", [0, 1, 3, 50])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 16), (200, 60)])
def test_it_fits(count: int, width: int, height: int) -> None:
    lines = drawn(seen(count), width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    assert "\x1b" not in "".join(lines)


def test_what_it_shows() -> None:
    text = "\n".join(drawn(seen(1), width=120))
    assert "MyLLM 1 at http://localhost:8000, up 0:01:15: 1 running, 2 queued, healthy" in text
    assert "Last minute: 7 requests, 1 failed, 15.0 tok/s read, 1.5 written, first 0.50s" in text
    for words in ("CUDA0", "8 MB", "42%", "loading 42%", "1/4", "asked-0", "500", "It\\x1b"):
        assert words in text


def test_a_usual_minute_fits_one_line_of_80_places() -> None:
    rates = {"prompt_tokens_per_second": [432.1], "generated_tokens_per_second": [123.4]}
    busy = HISTORY | {"times": [1], "requests": [123], "errors": [12]} | rates
    lines = drawn(seen(1, history=busy))
    expected = "Last minute: 123 requests, 12 failed, 432 tok/s read, 123 written, first 0.50s"
    assert expected in lines


@pytest.mark.parametrize("width", [40, 80])
def test_a_long_head_is_wrapped_and_not_cut_off(width: int) -> None:
    rates = {"prompt_tokens_per_second": [98765.4], "generated_tokens_per_second": [12345.6]}
    busy = HISTORY | {"times": [1], "requests": [123456], "errors": [12345]} | rates
    health = HEALTH | {"version": "1.10.0.dev12", "uptime_seconds": 123456789}
    url = "https://a-long-name.example.org:8000"
    lines = drawn(seen(0, url=url, health=health, history=busy), width)
    text = " ".join(lines[: lines.index("")])
    assert "…" not in text
    assert f"at {url}, up 1428 days, 21:33:09: 1 running, 2 queued, healthy" in text
    assert "98765 tok/s read, 12346 written, first 0.50s" in text


def test_what_does_not_fit_is_counted() -> None:
    text = "\n".join(drawn(seen(50)))
    assert text.count("more") == 3
    assert "and 4" in text


def test_in_a_pipe_everything_is_there() -> None:
    lines = drawn(seen(50), width=160, height=None)
    assert len(lines) == 2 + 4 * 2 + 2 + 3 * 50


def test_a_key_without_the_history_sees_the_rest() -> None:
    text = "\n".join(drawn(seen(1, history=None)))
    assert "Last minute" not in text
    assert "host" in text
