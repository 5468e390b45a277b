"""What a request carries in its state, by name, and the dependencies of routes that read it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fastapi import Request

HEALTH_PATHS: Final = frozenset({"/health", "/health/live", "/health/ready"})
"""Paths that are answered without a key, however busy the server is."""
HOLD_HEAD: Final = "hold_head"
"""A function: call it before the head is sent, and the head waits for what is sent next."""
BEGUN: Final = "begun"
"""Present once a head was sent: it is too late for another answer."""
SPARE: Final = "spare"
"""Present when the request's connection has a spare place, which is for `HEALTH_PATHS` alone."""

HEAD_ONLY: Final = "head_only"
"""Present when the request is a HEAD: a stream ends with its head."""

DEPARTURE: Final = "departure"
"""The `Departure` of the client that sent the request."""


class Departure:
    """Whether a request's client has left before its answer was complete.

    A callback, because a task that waits for it costs each request more.
    """

    def __init__(self) -> None:
        self._has_happened = False
        self._call: Callable[[], None] | None = None

    def happened(self) -> None:
        """The client has left."""
        self._has_happened = True
        if self._call is not None:
            self._call()

    def calls(self, call: Callable[[], None] | None) -> None:
        """Call `call` when the client leaves, or at once if it has left. None calls nothing."""
        self._call = call
        if call is not None and self._has_happened:
            call()


# Both are async, although nothing waits: FastAPI would run a plain function in a thread.


async def services_of(request: Request) -> Any:
    """The services of the server that answers the request."""
    return request.app.state.services


async def client_of(request: Request) -> Any:
    """The client that sent the request, as `access` found out."""
    return request.state.client
