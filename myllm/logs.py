"""Structured logs: one event a line, with the request's id, for people or for machines."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any, Literal

import orjson
import structlog


def configure(level: str, form: Literal["auto", "text", "json"]) -> None:
    """Log to stderr from `level` on; `auto` is text on a terminal, JSON elsewhere."""
    text = form == "text" or (form == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor
    if text:
        colors = sys.stderr.isatty()
        renderer = structlog.dev.ConsoleRenderer(
            colors=colors, exception_formatter=structlog.dev.plain_traceback
        )
    else:
        shared.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer(serializer=_json)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # What libraries log goes the same way; httpx would say each request of ours, and Alembic
    # each of its plugins.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared)
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for noisy in ("httpx", "httpcore", "uvicorn", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _json(event: Any, **options: Any) -> str:
    try:
        return orjson.dumps(event, default=options.get("default")).decode()
    except TypeError:  # half of a character, as a path may have it, or a very large number
        return json.dumps(event, **options)
