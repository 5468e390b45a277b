"""The services and other values that routes declare to receive; `app.py` builds the services."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Request

from myllm.api.http.request_state import client_of, services_of
from myllm.api.shared.engine_logs import LogReaders
from myllm.api.shared.readiness import Readiness
from myllm.errors import Forbidden
from myllm.gateway.activity.activity import Activity
from myllm.gateway.client import Client
from myllm.gateway.gateway import Gateway
from myllm.gateway.media.parts import Media
from myllm.gateway.metrics.exporter import Exporter
from myllm.gateway.observers.usage_book import UsageBook
from myllm.models.registry import Model, Registry
from myllm.sessions.keys import KeyStore
from myllm.sessions.store import SessionStore
from myllm.settings import Settings
from myllm.supervisor.spec import InstanceKey, main_role
from myllm.supervisor.spec_builder import SpecBuilder


@dataclass(frozen=True)
class Services:
    """The layers below the API, ready for use; `reload_access` reads what decides
    who may send requests, such as a changed admin key. `knows` says whether requests are still
    served as those of a client, for streams that have no end of their own."""

    settings: Settings
    gateway: Gateway
    specs: SpecBuilder
    sessions: SessionStore
    usage: UsageBook
    media: Media
    readiness: Readiness
    logs: LogReaders
    activity: Activity
    metrics: Exporter
    reload_access: Callable[[], None]
    knows: Callable[[Client], bool]
    started_at: float = field(default_factory=time.monotonic)

    @property
    def registry(self) -> Registry:
        """The models on disk."""
        return self.gateway.registry

    def context_size(self, model: Model) -> int:
        """What one conversation with the model gets, or would if it were loaded now."""
        plan = self.gateway.models.running_plan(model.name)
        if plan is not None:
            return plan.spec.context_size
        return self.specs.spec(InstanceKey(model.name, main_role(model)), model).context_size


@dataclass(frozen=True)
class StoreOnly:
    """The services of a server that has no engines and serves what is stored alone."""

    settings: Settings
    sessions: SessionStore
    usage: UsageBook
    registry: Registry


# What a route declares to receive them.
ServicesDep = Annotated[Services, Depends(services_of)]
ClientDep = Annotated[Client, Depends(client_of)]


# These functions are async, although nothing waits: FastAPI would run others in a thread.


def check_admin(client: Client) -> None:
    """Raise Forbidden for a client that is not an admin."""
    if client.role != "admin":
        raise Forbidden(f"The key '{client.key_name}' may not do this; only an admin may")


async def _admin(client: ClientDep) -> Client:
    check_admin(client)
    return client


async def _metrics_reader(client: ClientDep) -> Client:
    if client.role not in ("admin", "metrics"):
        raise Forbidden(
            f"The key '{client.key_name}' may not do this; only the roles metrics and admin may"
        )
    return client


# The client of a route for admins, and of the one for collectors of metrics; others get 403.
AdminDep = Annotated[Client, Depends(_admin)]
MetricsDep = Annotated[Client, Depends(_metrics_reader)]


async def _sessions(request: Request) -> SessionStore:
    return cast(Services | StoreOnly, request.app.state.services).sessions


async def _usage(request: Request) -> UsageBook:
    return cast(Services | StoreOnly, request.app.state.services).usage


async def _registry(request: Request) -> Registry:
    return cast(Services | StoreOnly, request.app.state.services).registry


async def _keys(request: Request) -> KeyStore:
    return KeyStore(cast(Services | StoreOnly, request.app.state.services).sessions.database)


async def _settings(request: Request) -> Settings:
    return cast(Services | StoreOnly, request.app.state.services).settings


# What is stored and the models on disk, for routes that need nothing else and so work with
# `StoreOnly`, too.
SessionsDep = Annotated[SessionStore, Depends(_sessions)]
UsageDep = Annotated[UsageBook, Depends(_usage)]
RegistryDep = Annotated[Registry, Depends(_registry)]
KeysDep = Annotated[KeyStore, Depends(_keys)]
SettingsDep = Annotated[Settings, Depends(_settings)]
