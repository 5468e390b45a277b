"""What a request carries in its state, by name, and the dependencies of routes that read it."""

from __future__ import annotations

from typing import Any, Final

from fastapi import Request

HOLD_HEAD: Final = "hold_head"
"""A function: call it before the head is sent, and the head waits for what is sent next."""
BEGUN: Final = "begun"
"""Present once a head was sent: it is too late for another answer."""
SPARE: Final = "spare"
"""Present when the request's connection has a spare place, which is for `/health` alone."""


# Both are async, although nothing waits: FastAPI would run a plain function in a thread.


async def services_of(request: Request) -> Any:
    """The services of the server that answers the request."""
    return request.app.state.services


async def client_of(request: Request) -> Any:
    """The client that sent the request, as `access` found out."""
    return request.state.client
