"""Types of fields that requests of several dialects have: how urgent they are, and stored texts."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from myllm.durations import parse_duration
from myllm.sessions.history import storable

KeepAlive = Annotated[float, BeforeValidator(parse_duration)]
"""Seconds that a model stays loaded after its last answer."""

Priority = Annotated[
    int,
    Field(ge=-10, le=10, description="Higher goes first of what waits; with keys, of your own."),
]

# Refused before the answer is made, not when it is to be stored.
Storable = Annotated[str, AfterValidator(storable)]
