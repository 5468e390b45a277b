"""An engine's event stream as bytes: where its events end, and what they contain.

Most blocks are passed on untouched, so whatever is done for every block must be cheap.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from myllm.errors import EngineError

_END = b"\n\n"
_DATA = b"data: "
_DONE = b"[DONE]"
# Quotation marks inside a text are escaped, so these cannot be part of an answer.
_ERROR = b'{"error":'
_PROGRESS = b'"prompt_progress":'
MAX_IN_EVENT = 64 * 2**20
"""The largest event in bytes; no answer needs as many."""


class Framing:
    """Joins and cuts the chunks of a connection into blocks of whole events."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._length = 0

    def whole(self, chunk: bytes) -> bytes:
        """Return the whole events that end in `chunk`, with their beginnings in earlier chunks.

        Raises EngineError for an event that does not end, and for bytes that are not UTF-8.
        """
        if self._rest or not chunk.endswith(_END):
            chunk = self._joined(chunk)
        if not chunk.isascii():
            try:
                chunk.decode()
            except UnicodeDecodeError as failure:
                raise EngineError(f"The engine sent what is not UTF-8: {failure}") from None
        return chunk

    def is_open(self) -> bool:
        """Whether the last event lacks its end."""
        return bool(self._rest)

    def _joined(self, chunk: bytes) -> bytes:
        # An end may be cut in two: only the last byte before this chunk can belong to one.
        before = self._rest[-1][-1:] if self._rest else b""
        end = (before + chunk).rfind(_END)
        if end < 0:
            self._keep(chunk)
            return b""
        cut = end + len(_END) - len(before)
        block = b"".join([*self._rest, chunk[:cut]])
        self._rest, self._length = [], 0
        self._keep(chunk[cut:])
        return block

    def _keep(self, rest: bytes) -> None:
        if not rest:
            return
        self._rest.append(rest)
        self._length += len(rest)
        if self._length > MAX_IN_EVENT:
            raise EngineError(f"The engine sent an event of over {MAX_IN_EVENT >> 20} MiB")


def split_at_error(block: bytes) -> tuple[bytes, dict[str, Any] | None]:
    """Return the events of `block` before its first error, and that error, or None.

    Nothing follows an error, because the engine closes the stream after it.
    """
    if _ERROR not in block:
        return block, None
    at = 0
    for event in block.split(_END):
        if event.startswith(_DATA + _ERROR):
            error = _json(event[len(_DATA) :])["error"]
            return block[:at], error if isinstance(error, dict) else {"message": str(error)}
        at += len(event) + len(_END)
    return block, None


def split_at_progress(block: bytes) -> tuple[bytes, bytes]:
    """Cut `block` behind the last event that says how much of the prompt has been read."""
    at = block.rfind(_PROGRESS)
    if at < 0:
        return b"", block
    end = block.index(_END, at) + len(_END)
    return block[:end], block[end:]


def events_in(block: bytes) -> Iterator[dict[str, Any]]:
    """Yield the events of a block, without comments and without the last line of a stream.

    Raises EngineError for an event that is not a JSON object.
    """
    for event in block.split(_END):
        if event.startswith(_DATA) and not event.endswith(_DONE):
            yield _json(event[len(_DATA) :])


def _json(text: bytes) -> dict[str, Any]:
    try:
        event = orjson.loads(text)
    except orjson.JSONDecodeError as failure:
        raise EngineError(f"The engine sent what is not JSON: {failure}") from None
    if not isinstance(event, dict):
        raise EngineError("The engine sent an event that is not a JSON object")
    return event


def event(data: Any) -> bytes:
    """Return `data` as one event."""
    return _DATA + orjson.dumps(data) + _END


LAST = _DATA + _DONE + _END
"""The last event of a stream in OpenAI's form."""
