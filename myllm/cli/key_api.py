"""The routes of API keys, for the commands: of the running server, or of the store alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from myllm.cli.client import checked

if TYPE_CHECKING:
    import httpx

    from myllm.settings import Settings

_PATH = "/api/keys"
_PAGE = 500
_CREATED = 201


class KeyApi:
    """The routes of API keys; each call raises the exception for an error answer."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def all(self) -> Iterator[dict[str, Any]]:
        """All keys, by name."""
        cursor: str | None = ""
        while cursor is not None:
            page = self._ask("GET", _PATH, limit=_PAGE, cursor=cursor)
            yield from page["keys"]
            cursor = page["next_cursor"]

    def get(self, name: str) -> dict[str, Any]:
        """What the key may do."""
        return self._ask("GET", _of(name))

    def create(self, fields: dict[str, Any], force: bool) -> dict[str, Any]:
        """The new key, with its secret."""
        return self._ask("POST", _PATH, fields, force=force)

    def add_hashed(self, name: str, sha256: bytes, role: str) -> bool:
        """Store a key of which only the hash is known; False if it was there already."""
        fields = {"name": name, "sha256": sha256.hex(), "role": role}
        return self._send("POST", _PATH, fields).status_code == _CREATED

    def change(self, name: str, fields: dict[str, Any], force: bool) -> dict[str, Any]:
        """The key after the change."""
        return self._ask("PATCH", _of(name), fields, force=force)

    def revoke(self, name: str, force: bool) -> None:
        """Remove the key."""
        self._ask("DELETE", _of(name), force=force)

    def rotate(self, name: str) -> dict[str, Any]:
        """The key with its new secret."""
        return self._ask("POST", f"{_of(name)}/rotate")

    def _ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, **query: Any
    ) -> dict[str, Any]:
        found: dict[str, Any] = self._send(method, path, body, **query).json()
        return found

    def _send(
        self, method: str, path: str, body: dict[str, Any] | None = None, **query: Any
    ) -> httpx.Response:
        return checked(self._client.request(method, path, json=body, params=query))


def _of(name: str) -> str:
    """The path of a key. Raises InvalidRequest for a name that no key has, such as `..`."""
    from myllm.sessions.keys import checked_name

    return f"{_PATH}/{quote(checked_name(name), safe='')}"


@contextmanager
def key_api(settings: Settings) -> Iterator[KeyApi]:
    """The running server, or else the routes of API keys, served for this command only."""
    from myllm.cli.temporary_server import store_for_command

    with store_for_command(settings) as client:
        yield KeyApi(client)
