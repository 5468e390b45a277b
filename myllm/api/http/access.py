"""Who may send requests, and who sent this one.

Three checks in this order, all before the body is read: is the request for this server (Host), may
the page that sent it do so (Origin, Sec-Fetch-Site), and whose key does it carry. The result is a
`Client` in the request's state.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog
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
from myllm.api.http.keys import Keys
from myllm.api.http.origins import Origins
from myllm.api.http.request_state import HEALTH_PATHS
from myllm.errors import Forbidden, InvalidKeysFile, KeyRefused
from myllm.gateway.client import Client
from myllm.settings import Settings

_log = structlog.get_logger(__name__)
_OPEN_PATHS = HEALTH_PATHS | {"/", "/docs", "/openapi.json"}
# No key gets ahead of another by raising its own priority; limits per key belong here.
_KEYS_MAX_PRIORITY = 0
_SECRET_HEADERS = (b"authorization", b"x-api-key")
# Headers that a page of another origin may read, besides the body.
_EXPOSED = ("X-Request-ID", "Retry-After", "X-Queue-Position")


@dataclass(frozen=True)
class Access:
    """The rules of one server; without any, all clients that reach it may use it.

    `hosts` are the names that a Host header may have besides the loopback ones; None allows any.
    """

    keys: Keys | None = None
    hosts: frozenset[str] | None = None
    origins: Origins = field(default_factory=Origins)

    @classmethod
    def of(cls, settings: Settings, address: str) -> Access:
        """The rules for a server that listens on `address`.

        Raises InvalidKeysFile.
        """
        keys = Keys(settings.api_keys_file) if settings.api_keys_file else None
        hosts = None
        if settings.allowed_hosts or is_loopback(address):
            named = (split_host(host)[0] for host in (*settings.allowed_hosts, settings.host))
            hosts = frozenset(named)
        return cls(keys, hosts, Origins(settings.cors_origins))

    def reload(self) -> None:
        """Read a changed keys file; one that cannot be used is logged and changes nothing."""
        if self.keys is None:
            return
        try:
            self.keys.reload()
        except InvalidKeysFile as failure:
            _log.error("keys not reloaded", cause=failure.detail)

    def guard(self, app: ASGIApp) -> ASGIApp:
        """Return `app` behind the checks of this module."""
        app = _KeyCheck(app, self.keys)
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
            is_link = headers.get("sec-fetch-dest") == "document" and path in _OPEN_PATHS
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

    def __init__(self, app: ASGIApp, keys: Keys | None) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            client = self._client(scope)
        except KeyRefused as refused:
            await error_response(refused, scope["path"])(scope, receive, send)
            return
        scope.setdefault("state", {})["client"] = client
        # No code after this sees a key, so none can log it or pass it on.
        headers = [pair for pair in scope["headers"] if pair[0] not in _SECRET_HEADERS]
        await self._app({**scope, "headers": headers}, receive, send)

    def _client(self, scope: Scope) -> Client:
        if self._keys is None or _is_open(scope["path"]):
            return Client("local", None, peer_of(scope))
        given = _keys_of(Headers(scope=scope))
        name = next(filter(None, map(self._keys.name_of, given)), None)
        if name is None:
            raise KeyRefused(
                "The key is not known to this server"
                if given
                else "This server asks for a key: send 'Authorization: Bearer <key>' or "
                "'X-Api-Key: <key>'"
            )
        return Client(f"key:{name}", name, name, _KEYS_MAX_PRIORITY)


def _is_open(path: str) -> bool:
    """Whether a path shows only public information, so that no key is needed."""
    return path in _OPEN_PATHS or path.startswith(ASSETS_PATH)


def peer_of(scope: Scope) -> str:
    """Return the client's address, as trusted proxies report it; a Unix socket has none."""
    peer = scope.get("client")
    return unmapped(str(peer[0])) if peer else "local"


def _keys_of(headers: Headers) -> list[str]:
    """Return the keys in the request's headers; one of them may be meant for a proxy in front."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    given = [key if scheme.lower() == "bearer" else "", headers.get("x-api-key", "")]
    return [key.strip() for key in given if key.strip()]
