"""Who may send requests, and who sent this one.

Three checks in this order, all before the body is read: is the request for this server (Host), may
the page that sent it do so (Origin, Sec-Fetch-Site), and whose key does it carry. The result is a
`Client` in the request's state.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import lru_cache

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from myllm.api.errors.handlers import error_response
from myllm.api.http.docs_page import ASSETS_PATH
from myllm.api.http.hosts import (
    is_from_elsewhere,
    is_loopback,
    is_same_origin,
    split_host,
    unmapped,
)
from myllm.api.http.keys import AdminKey, KeyRing, refused_client
from myllm.api.http.origins import Origins
from myllm.api.http.rate_limits import HEADERS as LIMIT_HEADERS
from myllm.api.http.rate_limits import RateLimits
from myllm.api.http.request_state import HEALTH_PATHS
from myllm.api.http.slowdown import Slowdown
from myllm.errors import Forbidden, KeyRefused, Unavailable
from myllm.gateway.client import LOCAL_OWNER, Client
from myllm.gateway.key_limits.key_limits import KeyLimits
from myllm.gateway.request_record import current
from myllm.sessions.keys import Role, sqlite_has_keys
from myllm.settings import Settings

OPEN_PATHS = HEALTH_PATHS | {"/", "/docs", "/openapi.json"}
METRICS_PATH = "/metrics"
_SECRET_HEADERS = (b"authorization", b"x-api-key")
# Headers that a page of another origin may read, besides the body.
_EXPOSED = ("X-Request-ID", "Retry-After", "X-Queue-Position", *LIMIT_HEADERS)


@dataclass(frozen=True)
class Access:
    """The rules of one server; without any, all clients that reach it may use it.

    Without `keys`, nothing can make it ask for one. `hosts` are the names that a Host header may
    have besides the loopback ones; None allows any.
    """

    keys: KeyRing | None = None
    hosts: frozenset[str] | None = None
    origins: Origins = field(default_factory=Origins)

    @classmethod
    def of(cls, settings: Settings, address: str) -> Access:
        """The rules for a server that listens on `address`.

        Raises InvalidSettings, StoreFailed, and ServeFailed if the server needs a key there and
        certainly has none.
        """
        keys = KeyRing(AdminKey.of(settings), is_loopback(address) or settings.allow_anonymous)
        if (has_keys := sqlite_has_keys(settings.database())) is not None:
            keys.check_start(has_keys)
        hosts = None
        if settings.allowed_hosts or is_loopback(address):
            named = (split_host(host)[0] for host in (*settings.allowed_hosts, settings.host))
            hosts = frozenset(named)
        return cls(keys, hosts, Origins(settings.cors_origins))

    def reload(self) -> None:
        """Read a changed admin key; one that cannot be used is logged and changes nothing."""
        if self.keys is not None:
            self.keys.reload()

    def knows(self, client: Client) -> bool:
        """Whether requests are still served as those of `client`."""
        return self.keys is None or self.keys.knows(client)

    def guard(self, app: ASGIApp) -> ASGIApp:
        """Return `app` behind the checks of this module."""
        app = _KeyCheck(RateLimits(app, KeyLimits()), self.keys)
        if self.origins:
            # Before the key check, since a browser's preflight request carries no key.
            app = CORSMiddleware(
                app,
                allow_origins=["*"] if self.origins.is_any else (),
                allow_origin_regex=self.origins.regex,
                allow_private_network=True,
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=_EXPOSED,
            )
        return _OriginCheck(app, self)

    def check_host(self, hosts: list[str], http_version: str) -> None:
        """Raise Forbidden for a Host header that names another host.

        This is how a page is recognized that points its own name to this machine (DNS rebinding).
        """
        if self.hosts is None or (not hosts and http_version == "1.0"):
            return
        name = split_host(hosts[0])[0] if len(hosts) == 1 else ""
        if not (is_loopback(name) or (name and name in self.hosts)):
            raise Forbidden(
                f"This server does not go by the name '{name}'; ask for localhost, or add the "
                "name to MYLLM_ALLOWED_HOSTS"
            )

    def check_origin(self, headers: Headers, host: str, path: str) -> None:
        """Raise Forbidden for a request that a page of another site makes.

        Requests for images, frames and links have no Origin, but browsers mark them in
        Sec-Fetch-Site. Links are allowed to lead to the public pages.
        """
        if self.origins.is_any:
            return
        origin = headers.get("origin")
        if origin is None:
            is_link = headers.get("sec-fetch-dest") == "document" and path in OPEN_PATHS
            if is_from_elsewhere(headers.getlist("sec-fetch-site")) and not is_link:
                raise Forbidden(
                    "Pages of other sites may not ask this server (Sec-Fetch-Site); ask from a "
                    "page of its own, or from a program"
                )
        elif origin not in self.origins and not is_same_origin(origin, host):
            raise Forbidden(
                f"Pages of '{origin}' may not ask this server; add the origin to "
                "MYLLM_CORS_ORIGINS to let them"
            )


class _OriginCheck:
    """Answers 403 to requests that pages of other sites make without their reader's knowledge."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            hosts = headers.getlist("host")
            try:
                self._access.check_host(hosts, scope["http_version"])
                self._access.check_origin(headers, hosts[0] if hosts else "", scope["path"])
            except Forbidden as refused:
                await error_response(refused, scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)


class _KeyCheck:
    """Identifies the client; answers 401 if its key is missing or wrong."""

    def __init__(self, app: ASGIApp, keys: KeyRing | None) -> None:
        self._app = app
        self._keys = keys
        self._slowdown = Slowdown()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = current()
        try:
            client = await self._client(scope)
            if record is not None:
                record.client = client
            if client.role == "metrics" and scope["path"] != METRICS_PATH:
                raise Forbidden(f"The key '{client.key_name}' is for GET {METRICS_PATH} alone")
        except (KeyRefused, Forbidden, Unavailable) as refused:
            if record is not None and isinstance(refused, KeyRefused) and refused.key_name:
                record.client = refused_client(refused.key_name)
            await error_response(refused, scope["path"])(scope, receive, send)
            return
        scope.setdefault("state", {})["client"] = client
        # No code after this sees a key, so none can log it or pass it on.
        headers = [pair for pair in scope["headers"] if pair[0] not in _SECRET_HEADERS]
        await self._app({**scope, "headers": headers}, receive, send)

    async def _client(self, scope: Scope) -> Client:
        """Raises KeyRefused and Unavailable."""
        path = scope["path"]
        if self._keys is None or self._keys.is_open:
            return _anyone(peer_of(scope))
        if _is_open(path):
            return _anyone(peer_of(scope), "user")
        given = _keys_of(Headers(scope=scope))
        if not given:
            raise KeyRefused(
                "This server asks for a key: send 'Authorization: Bearer <key>' or "
                "'X-Api-Key: <key>'"
            )
        client = await self._keys.client(given)
        if client is None:
            await asyncio.sleep(self._slowdown.delay_s(peer_of(scope)))
            raise KeyRefused("The key is not known to this server")
        return client


@lru_cache(1024)
def _anyone(address: str, role: Role = "admin") -> Client:
    """The client at an address that needs no key."""
    return Client(LOCAL_OWNER, None, address, role=role)


def _is_open(path: str) -> bool:
    """Whether a path shows only public information, so that no key is needed."""
    return path in OPEN_PATHS or path.startswith(ASSETS_PATH)


def peer_of(scope: Scope) -> str:
    """Return the client's address, as trusted proxies report it; a Unix socket has none."""
    peer = scope.get("client")
    return unmapped(str(peer[0])) if peer else "local"


def may_name_traces(scope: Scope, client: Client | None) -> bool:
    """Whether the client's `traceparent` is accepted: from this machine, from an admin, and through
    a trusted proxy. Others could write into traces that are not theirs."""
    if client is not None and client.role == "admin":
        return True
    # uvicorn knows no port of a client whose address a trusted proxy has forwarded.
    came_through_proxy = scope.get("client") is not None and scope["client"][1] == 0
    return came_through_proxy or is_loopback(peer_of(scope))


def _keys_of(headers: Headers) -> list[str]:
    """Return the keys in the request's headers; one of them may be meant for a proxy in front."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    given = [key if scheme.lower() == "bearer" else "", headers.get("x-api-key", "")]
    return [key.strip() for key in given if key.strip()]
