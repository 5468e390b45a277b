"""The feed of changes as server-sent events: what a page or a program needs to stay up to date."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from starlette.responses import Response

from myllm.api.errors.envelopes import envelope
from myllm.api.errors.handlers import status_of
from myllm.api.http.json_bodies import CheckedRoute
from myllm.api.http.streaming import Stream, described
from myllm.api.native.instances import shown_instances
from myllm.api.shared.bounded import Name
from myllm.api.shared.dependencies import ClientDep, Services, ServicesDep
from myllm.errors import MyLLMError
from myllm.gateway.activity.events import Event, sse
from myllm.gateway.activity.feed import shown_pull
from myllm.gateway.client import Client

router = APIRouter(prefix="/api", tags=["Status"], route_class=CheckedRoute)


@router.get("/events", response_class=Response, responses=described("text/event-stream"))
async def events(
    services: ServicesDep,
    client: ClientDep,
    after: Annotated[
        Name | None, Query(description="The id of the last event that was seen.")
    ] = None,
    last_event_id: Annotated[
        Name | None, Header(description="The same, as browsers send it; it takes precedence.")
    ] = None,
) -> Response:
    """A snapshot, and then each change as it comes; or only the changes after the last event that
    was seen, if these are still known. An admin sees all of them; another key gets the models that
    it may use and their queues, but neither memory and pulls nor what a model was unloaded for."""
    return Stream(
        lambda: _frames(services, client, last_event_id or after),
        _error_event,
        phase=lambda: "listening",
    )


async def _frames(
    services: Services, client: Client, last_id: str | None
) -> AsyncGenerator[bytes, None]:
    feed = services.activity.feed
    async with feed.listening() as listener:
        missed = feed.events.since(last_id)
        listener.forget()  # what came since it was made is in `missed`, or in the snapshot
        yield _snapshot(services, client) if missed is None else _frame(services, client, missed)
        while not listener.is_closed:
            changes, memory = await listener.news()
            if not services.knows(client):
                return  # its key has ended or changed; if it is valid, the client comes back
            if listener.has_missed:
                listener.forget()
                yield _snapshot(services, client)
            elif frame := _frame(services, client, changes):
                yield frame
            if memory is not None and client.role == "admin":
                yield memory


def _frame(services: Services, client: Client, changes: list[Event]) -> bytes:
    """Those of the changes that the client may see."""
    known = [event for event in changes if services.gateway.models.has(event.names)]
    frames = [event.frame if client.role == "admin" else event.for_users for event in known]
    return b"".join(filter(None, frames))


def _snapshot(services: Services, client: Client) -> bytes:
    """Everything that the events change, as it is now."""
    activity, snapshot = services.activity, services.gateway.snapshot()
    shown: dict[str, Any] = {
        "models": [
            {"name": names[0], "status": snapshot.status(names[0])}
            for names in activity.feed.names
            if services.gateway.models.has(names)
        ],
        "instances": shown_instances(snapshot),
    }
    if client.role == "admin":
        pulls = activity.pulls.under_way.items()
        shown["memory"] = activity.feed.memory()
        shown["pulls"] = [shown_pull(name, step) for name, step in pulls]
    return sse("snapshot", shown, activity.feed.events.last_id)


def _error_event(error: MyLLMError) -> bytes:
    return sse("error", envelope("detail", status_of(error), error.detail, error))
