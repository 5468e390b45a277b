"""The ids of traces, as W3C's Trace Context defines them."""

from __future__ import annotations

import hashlib
import re
from typing import Final, NamedTuple

from myllm.gateway.request_record import RequestRecord

_TRACEPARENT: Final = re.compile(
    r"(?P<version>(?!ff)[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})"
    r"-(?P<span>(?!0{16})[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
_TRACE_ID: Final = re.compile(r"(?!0{32})[0-9a-f]{32}")


class Parent(NamedTuple):
    """The span of a client that a request belongs to; hexadecimal digits."""

    trace_id: str
    span_id: str
    flags: str


def parent_of(record: RequestRecord) -> Parent | None:
    """What the client's `traceparent` says; None without a valid one."""
    if record.traceparent is None:
        return None
    found = _TRACEPARENT.fullmatch(record.traceparent.strip())
    if found is None or (found["version"] == "00" and found["more"]):
        return None
    return Parent(found["trace"], found["span"], found["flags"])


def trace_id_of(record: RequestRecord) -> str:
    """The id of the trace that the request belongs to: its client's, or else one made of its own
    id, so that the log can name it before any span is made."""
    if (parent := parent_of(record)) is not None:
        return parent.trace_id
    if _TRACE_ID.fullmatch(record.id):
        return record.id
    return hashlib.md5(record.id.encode(), usedforsecurity=False).hexdigest()
