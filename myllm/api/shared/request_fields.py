"""Types of fields that requests of several dialects have: queueing fields and stored texts."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from myllm.durations import parse_duration
from myllm.sessions.history import storable

KeepAlive = Annotated[float, BeforeValidator(parse_duration)]
"""Seconds that a model stays loaded after its last answer."""

Priority = Annotated[
    int,
    Field(
        ge=-10,
        le=10,
        description="Among waiting requests, higher goes first; with keys, among your own.",
    ),
]

Storable = Annotated[str, AfterValidator(storable)]
"""A text that will be stored: refused before the answer is made if the store cannot keep it."""
