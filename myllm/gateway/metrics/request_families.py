"""The metrics of requests. Names and meanings are vLLM's where it has the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import Metric

from myllm.gateway.metrics.families import MODEL, Labels, counter, histogram, labels_of
from myllm.gateway.metrics.histogram import Histogram
from myllm.gateway.metrics.request_counts import ModelCounts, RequestCounts
from myllm.supervisor.spec import InstanceKey

# A client that left before the head of its answer; nginx's status for it.
_CLIENT_LEFT: Final = 499
_TOTALS: Final = (
    ("prompt_tokens", "prompt_tokens", "Tokens of prompts."),
    ("generation_tokens", "generated_tokens", "Tokens of answers."),
    ("prefix_cache_queries", "prompt_tokens", "Tokens of prompts, looked for in the KV cache."),
    ("prefix_cache_hits", "cached_tokens", "Tokens of prompts that the KV cache had."),
    ("streams_resumed", "resumed", "Answers that went on after the death of their engine."),
)
_HISTOGRAMS: Final = (
    ("time_to_first_token_seconds", "first_token", "From the request to its first token."),
    ("inter_token_latency_seconds", "gaps", "Between one piece of text and the next."),
    ("e2e_request_latency_seconds", "e2e", "From the request to the end of its answer."),
    ("request_queue_time_seconds", "queue", "Waiting for a slot, or for the model to load."),
    ("request_prefill_time_seconds", "prefill", "From the slot to the first token."),
    ("request_decode_time_seconds", "decode", "From the first token to the last one."),
    ("request_prompt_tokens", "prompt", "Tokens of the prompt of one request."),
    ("request_generation_tokens", "generation", "Tokens of the answer to one request."),
)


def request_families(counts: RequestCounts) -> Iterator[Metric]:
    """Yield everything that requests are counted by."""
    models = counts.models
    finished = {
        labels_of(key, reason): number
        for key, each in models.items()
        for reason, number in each.finished.items()
    }
    yield counter(
        "myllm_request_success_total",
        "Requests that were answered, or whose client left (abort).",
        (*MODEL, "finished_reason"),
        finished,
    )
    errors = {labels_of(key, kind): number for (key, kind), number in counts.errors.items()}
    text = "Requests that failed, by the class of the error."
    yield counter("myllm_request_errors_total", text, (*MODEL, "error_type"), errors)
    rejections = {labels_of(key, kind): number for (key, kind), number in counts.rejections.items()}
    text = "Requests that failed because they got no slot or were over a limit."
    yield counter("myllm_admission_rejections_total", text, (*MODEL, "reason"), rejections)
    for name, field, text in _TOTALS:
        totals = {labels_of(key): getattr(each, field) for key, each in models.items()}
        yield counter(f"myllm_{name}_total", text, MODEL, totals)
    for name, field, text in _HISTOGRAMS:
        values = {
            labels_of(key): getattr(each, field)
            for key, each in models.items()
            if _has(key, each, field)
        }
        yield histogram(f"myllm_{name}", text, MODEL, values)
    yield from _http_families(counts)


def _has(key: InstanceKey, counts: ModelCounts, field: str) -> bool:
    """Leave out what embeddings and scores do not have."""
    return key.role == "generate" or field in ("e2e", "queue", "prompt")


def _http_families(counts: RequestCounts) -> Iterator[Metric]:
    requests: dict[Labels, float] = {
        (handler or "unknown", method, str(status or _CLIENT_LEFT)): number
        for (handler, method, status), number in counts.http.items()
    }
    labels = ("handler", "method", "status")
    yield counter("myllm_http_requests_total", "Requests, whatever they ask.", labels, requests)
    seconds: dict[Labels, Histogram] = {
        (handler or "unknown", method): each
        for (handler, method), each in counts.http_seconds.items()
    }
    text = "From the head of a request to the end of its answer."
    yield histogram("myllm_http_request_duration_seconds", text, labels[:2], seconds)
