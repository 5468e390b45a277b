"""Types of fields that requests of several dialects have: queueing fields and stored texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from myllm.durations import parse_duration
from myllm.gateway.client import Client
from myllm.gateway.scheduling.tickets import RequestInfo
from myllm.sessions.history import storable

KeepAlive = Annotated[float, BeforeValidator(parse_duration)]
"""Seconds that a model stays loaded after its last answer."""


def _or_default(priority: Any) -> Any:
    """Null is the same as absent."""
    return 0 if priority is None else priority


Priority = Annotated[
    int,
    Field(
        ge=-10,
        le=10,
        description="Among waiting requests, higher goes first; with keys, among your own.",
    ),
    BeforeValidator(_or_default, json_schema_input_type=int | None),
]

UNNAMED: Any = Field(
    None,
    description="A model's name or alias, from GET /v1/models. Default: the only loaded model that "
    "can do this, or else the only model that can.",
)
"""The default of `model` where one is found if the request names none."""

Storable = Annotated[str, AfterValidator(storable)]
"""A text that will be stored: refused before the answer is made if the store cannot keep it."""


class Queued:
    """The part of a schema with `priority` and `keep_alive` that the scheduler reads.

    Each schema declares the two fields itself, which keeps their order and their descriptions.
    """

    if TYPE_CHECKING:
        priority: int
        keep_alive: float | None

    def info(self, client: Client) -> RequestInfo:
        """Who sent this request, and how urgent it is."""
        return RequestInfo(client, self.priority, self.keep_alive)
