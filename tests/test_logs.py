"""Whatever is logged comes out as one line of JSON."""

from __future__ import annotations

import json

import pytest
import structlog

from myllm import logs


@pytest.mark.parametrize(
    "value", ["text", b"bytes", "half of a pair: \ud800", 2**70, {1: 2}, {"a"}, ValueError("x")]
)
def test_every_value_is_rendered(value: object, capsys: pytest.CaptureFixture[str]) -> None:
    before = structlog.get_config()
    try:
        logs.configure("info", "json")
        structlog.get_logger().warning("something", value=value)
        [line] = capsys.readouterr().err.splitlines()
        assert json.loads(line)["event"] == "something"
    finally:
        structlog.configure(**before)
