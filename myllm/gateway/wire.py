"""An engine's event stream as bytes: where its events end, and what they say.

Blocks are passed on untouched, so everything here that is done for every block is cheap.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from myllm.errors import EngineError

_END = b"\n\n"
_DATA = b"data: "
_DONE = b"[DONE]"
# Inside of a text its quotation marks are escaped, so this cannot be part of an answer.
_ERROR = b'{"error":'


def whole_events(received: bytes) -> tuple[bytes, bytes]:
    """The whole events that `received` begins with, and the rest."""
    if received.endswith(_END):
        return received, b""
    end = received.rfind(_END) + len(_END)
    return (received[:end], received[end:]) if end >= len(_END) else (b"", received)


def split_at_error(block: bytes) -> tuple[bytes, dict[str, Any] | None]:
    """The events of `block` before its first error, and that error, or None.

    Nothing follows an error: the engine closes the stream behind it.
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


def events_in(block: bytes) -> Iterator[dict[str, Any]]:
    """The events of a block, without comments and without the last line of a stream.

    Raises EngineError for what is no JSON object.
    """
    for event in block.split(_END):
        if event.startswith(_DATA) and not event.endswith(_DONE):
            yield _json(event[len(_DATA) :])


def _json(text: bytes) -> dict[str, Any]:
    try:
        event = orjson.loads(text)
    except orjson.JSONDecodeError as failure:
        raise EngineError(f"The engine sent what is no JSON: {failure}") from None
    if not isinstance(event, dict):
        raise EngineError("The engine sent an event that is no JSON object")
    return event


def event(data: Any) -> bytes:
    """`data` as one event."""
    return _DATA + orjson.dumps(data) + _END


LAST = _DATA + _DONE + _END
"""How OpenAI's streams end."""
