"""Runs `myllm` with an observer that writes the record of every request to `records.jsonl`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from myllm import __main__
from myllm.app import App
from myllm.gateway.observers.observer import Observer
from myllm.gateway.request_record import RequestRecord
from tests.serving import Serving

_FILE = "records.jsonl"
_TOLD = (
    "id", "path", "status", "tickets", "prompt_tokens", "cached_tokens", "generated_tokens",
    "finish_reason", "left_out", "deaths", "granted_at", "first_token_at", "last_token_at", "gaps",
    "gaps_s", "slot_s", "has_failed",
)  # fmt: skip


class Recorder(Observer):
    """Appends a line for each request to a file in the working directory."""

    def request_ended(self, record: RequestRecord) -> None:
        told = {name: getattr(record, name) for name in _TOLD}
        told["model"] = None if record.model is None else str(record.model)
        told["error"] = type(record.error).__name__ if record.error else None
        with Path(_FILE).open("a") as file:
            file.write(json.dumps(told) + "\n")


def records(server: Serving) -> dict[str, dict[str, Any]]:
    """Return the records so far, by the ids of their requests."""
    file = server.home / _FILE
    lines = file.read_text().splitlines() if file.exists() else []
    return {record["id"]: record for record in map(json.loads, lines)}


def record_of(server: Serving, request_id: str) -> dict[str, Any]:
    """Return the record of one request, which may end a moment after its client has the answer."""
    ends_at = time.monotonic() + 10
    while request_id not in (known := records(server)):
        assert time.monotonic() < ends_at, f"{request_id} did not end"
        time.sleep(0.02)
    return known[request_id]


_init = App.__init__


def _recording(self: App, *given: Any) -> None:
    _init(self, *given)
    self.observers.attach(Recorder())


if __name__ == "__main__":
    App.__init__ = _recording  # type: ignore[method-assign]
    __main__.main()
