"""Who sent a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from myllm.sessions.keys import HIGHEST_PRIORITY, Key, Role

ADMIN_KEY: Final = "(admin)"
"""The name of the admin key of the settings, which no key in the store can have."""

LOCAL_OWNER: Final = "local"
"""The owner of what was made while the server had no keys."""


def owner_of(key_name: str) -> str:
    """Return the owner of what requests with this key make."""
    return f"key:{key_name}"


@dataclass(frozen=True)
class Client:
    """Who sent a request.

    `owner` names the sessions that it sees: a slot never shows one owner's text to another.
    `key_name` is the name of its API key; None on a server without keys, where everyone who
    reaches the server is the same owner, and an admin. `key` has the key's limits; the admin key of
    the settings has none. Requests with the same `fair_id` (the key's name, or else the address)
    share one fair share of the slots. Towards other clients, its requests have the priority
    `max_priority` at most.
    """

    owner: str = ""
    key_name: str | None = None
    fair_id: str = ""
    max_priority: int = HIGHEST_PRIORITY
    role: Role = "admin"
    key: Key | None = None
