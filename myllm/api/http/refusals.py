"""Answers of the protocol itself, to requests that do not reach the application."""

from __future__ import annotations

import http

import orjson

from myllm.api.dialects import dialect_of
from myllm.api.errors.envelopes import envelope


class Refused(Exception):
    """A request that is not read any further.

    Raised inside the parser, which reports only that it was stopped; so the protocol keeps it.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def head_too_large(most: int) -> Refused:
    """Return the refusal of a head of more than `most` bytes."""
    return Refused(431, f"The headers are larger than {most // 2**10} KiB")


def refusal(refused: Refused, path: str = "", retry_after_s: int | None = None) -> bytes:
    """Return the whole answer, in the dialect of `path`; it ends the connection."""
    body = orjson.dumps(envelope(dialect_of(path).envelope, refused.status, refused.detail))
    lines = [
        f"HTTP/1.1 {refused.status} {http.HTTPStatus(refused.status).phrase}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "connection: close",
    ]
    if retry_after_s is not None:
        lines.append(f"retry-after: {retry_after_s}")
    return "\r\n".join([*lines, "", ""]).encode() + body
