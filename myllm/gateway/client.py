"""Who sent a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

ANY_PRIORITY: Final = 10
"""The highest priority that a request can ask for."""

Role = Literal["user", "admin", "metrics"]
"""What a key is for: to use models, to operate the server as well, or to read metrics alone."""


@dataclass(frozen=True)
class Client:
    """Who sent a request.

    `owner` names the sessions that it sees: a slot never shows one owner's text to another.
    `key_name` is the name of its API key; None on a server without keys, where everyone who
    reaches the server is the same owner, and an admin. Requests with the same `fair_id` (the key's
    name, or else the address) share one fair share of the slots. Towards other clients, its
    requests have the priority `max_priority` at most.
    """

    owner: str = ""
    key_name: str | None = None
    fair_id: str = ""
    max_priority: int = ANY_PRIORITY
    role: Role = "admin"
