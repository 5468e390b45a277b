"""Each logged event is one line of JSON, and logging neither raises nor blocks."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import structlog

from myllm import logs
from myllm.log_writer import LogWriter
from tests.serving import wait_until

LINE = b"x" * 99 + b"\n"


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.fixture
def lines(capfd: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Configure the log; yield a function that returns the JSON lines so far."""
    before = structlog.get_config()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def lines() -> list[dict[str, Any]]:
        assert logs.flush(10)
        return [json.loads(line) for line in capfd.readouterr().err.splitlines()]

    try:
        logs.configure("info", "json")
        yield lines
    finally:
        structlog.configure(**before)
        root.handlers[:] = handlers
        root.setLevel(level)


@pytest.mark.parametrize(
    "value", ["text", b"bytes", "half of a pair: \ud800", 2**70, {1: 2}, {"a"}, ValueError("x")]
)
def test_every_value_is_rendered(value: object, lines: Any) -> None:
    structlog.get_logger().warning("something", value=value)
    [line] = lines()
    assert line["event"] == "something"
    assert "value" in line


def test_a_value_that_cannot_be_rendered_is_named_instead_of_raised(lines: Any) -> None:
    endless: list[Any] = []
    endless.append(endless)
    for value in (Unprintable(), endless):
        structlog.get_logger().warning("something", value=value)
    assert [line["event"] for line in lines()] == ["something", "something"]


def test_logging_by_libraries_neither_raises_nor_loses_lines(
    lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    own = [each for each in root.handlers if "pytest" not in type(each).__module__]
    monkeypatch.setattr(root, "handlers", own)  # pytest's handlers raise
    logging.getLogger("library").warning("one")
    logging.getLogger("library").warning("%d is no number", Unprintable())
    logging.getLogger("library").warning("three")
    assert [line["event"] for line in lines()] == ["one", "library", "three"]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for end in (reading, writing):
        with suppress(OSError):  # a test may have closed it
            os.close(end)


def read_until(fd: int, last: bytes) -> bytes:
    data = b""
    while not data.endswith(last):
        data += os.read(fd, 2**16)
    return data


def test_lines_beyond_the_bound_are_dropped_and_counted(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    dropped: list[int] = []
    writer = LogWriter(writing, dropped.append, most_bytes=2**17)
    began = time.monotonic()
    for _ in range(5000):
        writer.write(LINE)
    assert time.monotonic() - began < 5, "an unread pipe has blocked the caller"
    assert not writer.flush(0.2)
    reader = threading.Thread(target=read_until, args=(reading, b"last\n"), daemon=True)
    reader.start()
    wait_until(lambda: bool(dropped), 10, "the report of dropped lines")
    writer.write(b"last\n")
    reader.join(10)
    assert dropped == [5000 - 2**17 // len(LINE)]


def test_a_line_that_cannot_be_written_is_counted_once_writing_works_again(
    pipe: tuple[int, int],
) -> None:
    reading, writing = pipe
    dropped: list[int] = []
    writer = LogWriter(writing, dropped.append)
    kept = os.dup(writing)
    os.close(writing)
    writer.write(LINE)
    writer.write(LINE)
    assert writer.flush(10)
    assert dropped == []
    os.dup2(kept, writing)
    os.close(kept)
    writer.write(b"last\n")
    assert writer.flush(10)
    assert dropped == [2]
    assert os.read(reading, 100) == b"last\n"


def test_a_non_blocking_stderr_gets_every_line(pipe: tuple[int, int]) -> None:
    """As on a terminal that another program has made non-blocking."""
    reading, writing = pipe
    os.set_blocking(writing, False)
    writer = LogWriter(writing, lambda dropped: None)
    for _ in range(2000):
        writer.write(LINE)
    writer.write(b"last\n")
    time.sleep(0.1)
    assert len(read_until(reading, b"last\n")) == 2000 * len(LINE) + 5
