"""What the routes work with; built by `app.py` and kept on the application."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Request

from myllm.gateway.gateway import Gateway
from myllm.gateway.media.parts import Media
from myllm.gateway.scheduling.tickets import Client
from myllm.models.registry import Registry
from myllm.sessions.store import SessionStore
from myllm.settings import Settings
from myllm.supervisor.spec_builder import Specs


@dataclass(frozen=True)
class Services:
    """The rooms below, ready for use; `reload_keys` reads a changed keys file."""

    settings: Settings
    gateway: Gateway
    specs: Specs
    sessions: SessionStore
    media: Media
    reload_keys: Callable[[], None]
    started_at: float = field(default_factory=time.monotonic)

    @property
    def registry(self) -> Registry:
        """The models on disk."""
        return self.gateway.registry


@dataclass(frozen=True)
class StoreOnly:
    """For the routes about stored conversations, when there is nothing else."""

    sessions: SessionStore
    registry: Registry


async def _services(request: Request) -> Services:
    # async, although nothing waits: FastAPI would run a plain function in a thread.
    return cast(Services, request.app.state.services)


# What a route declares to get them.
ServicesDep = Annotated[Services, Depends(_services)]


async def _sessions(request: Request) -> SessionStore:
    return cast(Services | StoreOnly, request.app.state.services).sessions


# The stored conversations alone, for routes that need nothing else.
SessionsDep = Annotated[SessionStore, Depends(_sessions)]


async def _registry(request: Request) -> Registry:
    return cast(Services | StoreOnly, request.app.state.services).registry


# The models on disk, for the same routes.
RegistryDep = Annotated[Registry, Depends(_registry)]


async def _client(request: Request) -> Client:
    return cast(Client, request.state.client)


# Who sent the request.
ClientDep = Annotated[Client, Depends(_client)]
