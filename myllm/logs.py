"""Structured logs: one event per line, with the request's id, for people or for machines.

Logging neither raises into the caller nor blocks it: an event that cannot be rendered becomes a
line that says so, and a thread writes the lines (see `log_writer.py`).
"""

from __future__ import annotations

import atexit
import functools
import io
import json
import logging
import sys
from collections.abc import MutableMapping, Sequence
from typing import Any, Literal, TextIO

import orjson
import structlog

from myllm.escaping import in_json, in_lines, on_one_line
from myllm.log_writer import STDERR, LogWriter, QueuedStream

# The last flush of a process waits no longer than this for a slow or stopped reader of stderr.
_FLUSH_S = 1.0


def configure(level: str, form: Literal["auto", "text", "json"]) -> None:
    """Log to stderr from `level` on; `auto` is text on a terminal, JSON elsewhere."""
    terminal = sys.stderr.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor
    if form == "text" or (form == "auto" and terminal):
        renderer = _Console(terminal)
    else:
        shared.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer(serializer=_json)
    structlog.configure(
        processors=[functools.partial(_render, [*shared, renderer])],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_Lines,
        cache_logger_on_first_use=True,
    )
    # Libraries log the same way. Without a higher level, httpx would log each of our requests, and
    # Alembic each of its plugins.
    handler = _Handler(shared, renderer)
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for noisy in ("httpx", "httpcore", "uvicorn", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def take_over_stderr() -> None:
    """Send everything printed to `sys.stderr`, such as warnings and tracebacks, through the log's
    queue."""
    stream = QueuedStream(_writer(), STDERR)
    sys.stderr = io.TextIOWrapper(
        stream,
        encoding=sys.stderr.encoding,
        errors="backslashreplace",
        line_buffering=True,
    )


def flush(timeout_s: float = _FLUSH_S) -> bool:
    """Wait until every logged line is written; False if that takes too long."""
    return _writer().flush(timeout_s)


@functools.cache
def _writer() -> LogWriter:
    """The process's only log writer; it is flushed before the process ends."""
    log = structlog.get_logger(__name__)
    writer = LogWriter(STDERR, lambda lines: log.warning("log lines dropped", lines=lines))
    atexit.register(writer.flush, _FLUSH_S)
    return writer


class _Console:
    """Renders events for people. Text from outside can neither control the terminal nor imitate an
    event: every event is one line, and only the lines of a traceback follow it, indented."""

    def __init__(self, colours: bool) -> None:
        self._render = structlog.dev.ConsoleRenderer(
            colors=colours, exception_formatter=_indented_traceback
        )

    def __call__(self, logger: Any, name: str, event: MutableMapping[str, Any]) -> str:
        plain = {key: _on_one_line(value) for key, value in event.items()}
        return str(self._render(logger, name, plain))


def _on_one_line(value: Any) -> Any:
    """A string without line breaks; other values stay, and show strings inside them by `repr`."""
    return on_one_line(value) if isinstance(value, str) else value


def _indented_traceback(out: TextIO, failure: Any) -> None:
    plain = io.StringIO()
    structlog.dev.plain_traceback(plain, failure)
    out.write(in_lines(plain.getvalue()).replace("\n", "\n    "))


class _Lines:
    """The logger that structlog writes to: each message is a line."""

    def __init__(self, *_: object) -> None:
        self._write = _writer().write

    def msg(self, message: str) -> None:
        self._write(_encoded(message))

    debug = info = warning = error = critical = msg


class _Handler(logging.Handler):
    """Renders records of libraries that use `logging` in the format of our own events."""

    def __init__(
        self, shared: Sequence[structlog.typing.Processor], renderer: structlog.typing.Processor
    ) -> None:
        super().__init__()
        self._write = _writer().write
        self._renderer = renderer
        self.setFormatter(
            structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared)
        )

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as failure:  # noqa: BLE001 - logging must not fail
            line = _instead(self._renderer, record.name, record.levelname.lower(), failure)
        self._write(_encoded(line))


def _encoded(line: str) -> bytes:
    return f"{line}\n".encode(errors="backslashreplace")


def _render(
    processors: Sequence[structlog.typing.Processor],
    logger: Any,
    method: str,
    event: MutableMapping[str, Any],
) -> Any:
    """The line for `event`; if its values cannot be rendered, the line names the cause."""
    name = event.get("event")
    rendered: Any = event
    try:
        for process in processors:
            rendered = process(logger, method, rendered)
    except Exception as failure:  # noqa: BLE001 - logging must not fail
        return _instead(processors[-1], name, method, failure)
    return rendered


def _instead(
    renderer: structlog.typing.Processor, event: object, level: str, failure: Exception
) -> Any:
    """The line for an event whose values cannot be rendered."""
    name = event if isinstance(event, str) else type(event).__name__
    cause = f"cannot be logged: {type(failure).__name__}"
    return renderer(None, level, {"event": name, "level": level, "values": cause})


def _json(event: Any, **options: Any) -> str:
    try:
        line = orjson.dumps(event, default=options.get("default")).decode()
    except TypeError:  # a lone surrogate, as a path may have it, or a very large number
        line = json.dumps(event, **options)
    return in_json(line)
