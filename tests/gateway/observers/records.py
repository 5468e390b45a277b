"""Records of requests for tests of the observers that read them."""

from __future__ import annotations

from typing import Any

from myllm.gateway.client import Client
from myllm.gateway.request_record import RequestRecord
from myllm.supervisor.spec import InstanceKey

ID = "0123456789abcdef0123456789abcdef"


def ended(**known: Any) -> RequestRecord:
    """A request that took 2.5 s."""
    record = RequestRecord(ID, "POST", "/api/chat", "native", "192.0.2.1", 1_700_000_000.0, 100.0)
    record.status, record.ended_at = 200, 102.5
    for name, value in known.items():
        setattr(record, name, value)
    return record


def answered(**known: Any) -> RequestRecord:
    """One that waited 0.5 s, of these 0.25 s for the load; then it got 11 tokens, 10 in a second
    after the first."""
    mine: dict[str, Any] = {
        "client": Client("key:ann", "ann", "ann", role="user"),
        "handler": "/api/chat",
        "model": InstanceKey("demo", "generate"),
        "tickets": 1,
        "queued_s": 0.5,
        "load_s": 0.25,
        "granted_at": 100.75,
        "first_token_at": 101.25,
        "last_token_at": 102.25,
        "slot_s": 1.5,
        "prompt_tokens": 20,
        "cached_tokens": 5,
        "generated_tokens": 11,
        "finish_reason": "stop",
    }
    return ended(**mine | known)
