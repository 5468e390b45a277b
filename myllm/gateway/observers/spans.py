"""Sends a trace of each request to an OpenTelemetry collector.

    request ─┬─ queue ── load
             ├─ prompt
             └─ answer

The spans are made from the finished record of a request, with the times in it, so that nothing is
done while the request is answered. A thread of OpenTelemetry's sends them, and drops what a
collector does not take.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any, Final

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from myllm import __version__
from myllm.gateway.observers.event_log import MONITORED
from myllm.gateway.observers.observer import Observer
from myllm.gateway.observers.trace_ids import parent_of, trace_id_of
from myllm.gateway.request_record import RequestRecord

_log = structlog.get_logger(__name__)
_MAX_PATH: Final = 1024
# The server must not stop late because a collector does not answer.
_LAST_EXPORT_S: Final = 0.5
_COMPLETIONS: Final = ("/generate", "/completion", "/completions", "/infill")


class _Ids(RandomIdGenerator):
    """Gives the next trace the id that its request has in the log."""

    trace_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id


def provider() -> TracerProvider:
    """What sends spans, as the variables of OpenTelemetry say. Raises what they make it raise."""
    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        named = Resource({SERVICE_NAME: "myllm", SERVICE_VERSION: __version__})
        resource = resource.merge(named)
    made = TracerProvider(resource=resource, shutdown_on_exit=False, id_generator=_Ids())
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return made


class Spans(Observer):
    """Makes the spans of each request that has ended."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("myllm", __version__)

    async def close(self) -> None:
        """Send what is left, for a moment at most."""
        loop, sent = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # the loop waited no longer, and has ended
                loop.call_soon_threadsafe(sent.set)

        # A daemon, since the exporter may wait long for the collector.
        threading.Thread(target=shut_down, name="last traces", daemon=True).start()
        try:
            async with asyncio.timeout(_LAST_EXPORT_S):
                await sent.wait()
        except TimeoutError:
            _log.warning("the last traces may be lost", seconds=_LAST_EXPORT_S)

    def request_ended(self, record: RequestRecord) -> None:
        if record.path.startswith(MONITORED):
            return
        request = self._started(record)
        if request.is_recording():
            for moment in record.died_at or ():
                request.add_event("resumed", timestamp=_ns(record, moment))
            if record.status >= 500 or (record.has_failed and record.status < 400):
                request.set_status(StatusCode.ERROR)
            self._add_phases(record, set_span_in_context(request, Context()))
        request.end(_ns(record, record.ended_at or record.began_at))

    def _started(self, record: RequestRecord) -> Span:
        """The span of the whole request, as part of its client's trace or of one of its own."""
        context = Context()
        if (parent := parent_of(record)) is not None:
            flags = TraceFlags(int(parent.flags, 16) & TraceFlags.SAMPLED)
            ids = int(parent.trace_id, 16), int(parent.span_id, 16)
            remote = NonRecordingSpan(SpanContext(*ids, is_remote=True, trace_flags=flags))
            context = set_span_in_context(remote, context)
        if isinstance(self._provider.id_generator, _Ids):
            self._provider.id_generator.trace_id = int(trace_id_of(record), 16)
        name = f"{record.method} {record.handler}".strip()
        began = _ns(record, record.began_at)
        known = _of_request(record) | _of_model(record)
        return self._tracer.start_span(name, context, SpanKind.SERVER, known, start_time=began)

    def _add_phases(self, record: RequestRecord, context: Context) -> None:
        granted, first = record.granted_at, record.first_token_at
        if granted is None:
            return
        queue = self._add_phase("queue", record, context, granted - record.queued_s, granted)
        if record.load_s:
            in_queue = set_span_in_context(queue, context)
            self._add_phase("load", record, in_queue, granted - record.load_s, granted)
        end = record.last_token_at or record.ended_at or granted
        self._add_phase("prompt", record, context, granted, first or end)
        if first is not None:
            self._add_phase("answer", record, context, first, max(end, first))

    def _add_phase(
        self, name: str, record: RequestRecord, context: Context, begin: float, end: float
    ) -> Span:
        span = self._tracer.start_span(name, context, start_time=_ns(record, begin))
        span.end(_ns(record, end))
        return span


def _ns(record: RequestRecord, moment: float) -> int:
    """The Unix time, in nanoseconds, of a moment of the monotonic clock."""
    return int((record.began + moment - record.began_at) * 1e9)


def _of_request(record: RequestRecord) -> dict[str, Any]:
    """Attributes by OpenTelemetry's conventions for HTTP servers."""
    known: dict[str, Any] = {
        "http.request.method": record.method,
        "url.path": record.path[:_MAX_PATH],
        "client.address": record.address,
        "myllm.client": record.client_name,
        "myllm.request_id": record.id,
    }
    if record.handler:
        known["http.route"] = record.handler
    if record.status:
        known["http.response.status_code"] = record.status
    if record.error is not None:
        known["error.type"] = record.error_name
    elif record.status >= 400:
        known["error.type"] = str(record.status)
    return known


def _of_model(record: RequestRecord) -> dict[str, Any]:
    """Attributes by OpenTelemetry's conventions for generative AI."""
    if record.model is None:
        return {}
    known: dict[str, Any] = {
        "gen_ai.provider.name": "myllm",
        "gen_ai.request.model": record.model.model,
    }
    if record.tickets:
        known |= {
            "gen_ai.operation.name": _operation(record.model.role, record.handler),
            "gen_ai.response.model": record.model.model,
            "gen_ai.usage.input_tokens": record.prompt_tokens,
            "gen_ai.usage.cache_read.input_tokens": record.cached_tokens,
            "gen_ai.usage.output_tokens": record.generated_tokens,
        }
    if record.finish_reason is not None:
        known["gen_ai.response.finish_reasons"] = (record.finish_reason,)
    if (first_token_s := record.first_token_s) is not None:
        known["gen_ai.response.time_to_first_chunk"] = first_token_s
    if record.left_out:
        known["myllm.left_out_messages"] = record.left_out
    return known


def _operation(role: str, route: str) -> str:
    if role != "generate":
        return {"embed": "embeddings"}.get(role, role)
    is_text = route.endswith(_COMPLETIONS) and not route.endswith("/chat/completions")
    return "text_completion" if is_text else "chat"
