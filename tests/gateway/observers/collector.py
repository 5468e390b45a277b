"""A collector of OpenTelemetry's, on loopback: it keeps the spans that it gets."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Collector:
    """What was received so far."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        """The variables that make a server send its traces here, soon."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}

    def requests(self) -> list[Span]:
        """The spans of whole requests."""
        return [span for span in self.spans if span.kind == Span.SPAN_KIND_SERVER]

    def trace(self, request: Span) -> dict[str, Span]:
        """The spans below a request, by name."""
        mine = [span for span in self.spans if span.trace_id == request.trace_id]
        return {span.name: span for span in mine if span is not request}


def attributes(span: Span) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in span.attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return None if kind is None else getattr(value, kind)


@contextmanager
def collecting(delay_s: float = 0.0) -> Iterator[Collector]:
    """Serve until the block ends; each answer comes after `delay_s` seconds."""
    collector, over = Collector(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            assert self.path == "/v1/traces"
            over.wait(delay_s)
            received = ExportTraceServiceRequest.FromString(body)
            for each in received.resource_spans:
                found = {a.key: _value(a.value) for a in each.resource.attributes}
                collector.resources.append(found)
                for scope in each.scope_spans:
                    collector.spans += scope.spans
            collector.headers.append(dict(self.headers))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep the tests' output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield collector
    finally:
        over.set()
        server.shutdown()
        thread.join(10)
        server.server_close()
