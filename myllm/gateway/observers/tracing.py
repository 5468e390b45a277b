"""Decides whether traces are sent: OpenTelemetry's own variables (`OTEL_*`) say so, nothing else.

`spans.py` sends them; it is imported only then, because OpenTelemetry is an extra and slow to
import.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from myllm.gateway.observers.spans import Spans

_log = structlog.get_logger(__name__)
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL: Final = "http/protobuf"
_MISSING: Final = "OpenTelemetry is not installed: pip install 'myllm[otel]'"


def configured_spans(environment: Mapping[str, str] = os.environ) -> Spans | None:
    """Makes spans and sends them as the environment says; None if it does not ask for that, or,
    with a line in the log, if they cannot be sent."""
    if not _are_wanted(environment):
        return None
    protocol = next(filter(None, map(environment.get, _PROTOCOLS)), _PROTOCOL)
    if protocol != _PROTOCOL:
        _log.warning("traces are off", cause=f"the protocol is {protocol}, not {_PROTOCOL}")
        return None
    try:
        from myllm.gateway.observers.spans import Spans, provider

        spans = Spans(provider())
    except ImportError as failure:
        _log.warning("traces are off", cause=_MISSING, missing=failure.name)
        return None
    except Exception as failure:  # noqa: BLE001 - a wrong variable must not stop the server
        _log.warning("traces are off", cause=f"{type(failure).__name__}: {failure}")
        return None
    _log.info("traces are on")
    return spans


def _are_wanted(environment: Mapping[str, str]) -> bool:
    """Whether a collector is named, and traces are not switched off."""

    def value(name: str) -> str:
        return environment.get(name, "").strip().lower()

    is_off = value("OTEL_SDK_DISABLED") == "true" or value("OTEL_TRACES_EXPORTER") == "none"
    return any(map(value, _ENDPOINTS)) and not is_off
