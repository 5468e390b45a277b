"""API keys in memory: which client sent a request, and whether the server asks for keys at all.

    open ──> closed    when the first key appears in the store

A server that has an admin key, or whose store has a key when it starts, is closed from the start.
None opens again while it runs: the removal of the last key must not give everyone access.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

import structlog

from myllm.errors import InvalidSettings, KeyRefused, ServeFailed, Unavailable
from myllm.gateway.client import ADMIN_KEY, Client, owner_of
from myllm.loops import in_background, keep_running
from myllm.sessions.keys import Key, KeyStore, hash_of
from myllm.settings import Settings

_log = structlog.get_logger(__name__)
_POLL_S: Final = 1.0
# How long a request with a key waits for the keys to be read after the server's start.
_FIRST_READ_S: Final = 10.0
# The time of a key's last use is written this often at most, and for so many keys at once.
_NOTE_S: Final = 60.0
_NOTES: Final = 500
_MOST_BYTES: Final = 4096


class KeyRing:
    """The keys in the store, at most two seconds old, and the admin key of the settings.

    While the store cannot be read, the keys stay as they were.
    """

    def __init__(self, admin_key: AdminKey | None, may_be_open: bool) -> None:
        self.is_open = admin_key is None
        """Whether every request is served, with a key or without."""
        self._admin_key = admin_key
        self._may_be_open = may_be_open
        self._clients: dict[bytes, Client] = {}
        self._number: int | None = None
        self._is_read = asyncio.Event()
        self._used: dict[str, float] = {}
        self._noted_at: dict[str, float] = {}

    def check_start(self, has_keys: bool) -> None:
        """Raise ServeFailed if the server would be open, and must not be."""
        if self.is_open and not has_keys and not self._may_be_open:
            raise ServeFailed(
                "other machines can reach the address to listen on, and there is no API key: "
                "create one with 'myllm key create NAME --role admin', or set "
                "MYLLM_ALLOW_ANONYMOUS=true to let every client that reaches it use the models, "
                "and delete them"
            )

    def follow(self, store: KeyStore, has_keys: bool) -> list[asyncio.Task[NoReturn]]:
        """Read the keys of `store` now and whenever they change, until the tasks are cancelled.

        With `has_keys` the server is closed even before they have been read. Raises ServeFailed as
        `check_start` does.
        """
        self.check_start(has_keys)
        self.is_open = self.is_open and not has_keys
        read, note = partial(self._read, store), partial(self._note_used, store)
        reading = keep_running("reading API keys", read, _POLL_S, first_s=0)
        noting = keep_running("noting when API keys were used", note, _POLL_S)
        return [in_background("API keys", each) for each in (reading, noting)]

    def reload(self) -> None:
        """Read a changed admin key; one that cannot be used is logged and changes nothing."""
        if self._admin_key is None:
            return
        try:
            self._admin_key.read()
        except InvalidSettings as failure:
            _log.error("admin key not reloaded", cause=failure.detail)

    def knows(self, client: Client) -> bool:
        """Whether requests are still served as those of `client`: its key is valid and unchanged,
        or the server still asks for none."""
        if client.key is None:
            return self.is_open or client is _ADMIN_CLIENT
        known = self._clients.get(client.key.sha256)
        return known is client and client.key.is_valid(time.time())

    async def client(self, secrets: Iterable[str]) -> Client | None:
        """Return whom one of these keys stands for; None if no key is known.

        Right after the start it waits for the keys to be read. Raises KeyRefused for a key that is
        known and not valid now, and Unavailable when the keys cannot be read.
        """
        secrets = tuple(secrets)
        found = self._find(secrets)
        if found is None and secrets and not self._is_read.is_set():
            try:
                async with asyncio.timeout(_FIRST_READ_S):
                    await self._is_read.wait()
            except TimeoutError:
                detail = "The API keys could not be read from the store yet; please try again"
                raise Unavailable(detail, retry_after_s=5) from None
            found = self._find(secrets)
        return found

    def _find(self, secrets: tuple[str, ...]) -> Client | None:
        refused: KeyRefused | None = None
        for secret in secrets:
            hashed = hash_of(secret)
            if self._admin_key is not None and self._admin_key.is_(hashed):
                return _ADMIN_CLIENT
            client = self._clients.get(hashed)
            if client is None or client.key is None:
                continue
            key, now = client.key, time.time()
            # The dictionary has compared the hashes, whose timing tells nothing about keys.
            if not hmac.compare_digest(hashed, key.sha256):
                continue
            if key.is_valid(now):
                self._used[key.name] = now
                return client
            why = "is disabled" if key.disabled else "has expired"
            refused = KeyRefused(f"The key '{key.name}' {why}", key.name)
        if refused is not None:
            raise refused
        return None

    async def _read(self, store: KeyStore) -> None:
        # Read first, so that a change during the reading of the keys is noticed the next time.
        number = await store.change_number()
        if number != self._number:
            self._clients = await self._read_all(store)
            self._number = number
            if self._clients and self.is_open:
                self.is_open = False
                _log.warning("from now on every request needs an API key", keys=len(self._clients))
        self._is_read.set()

    async def _read_all(self, store: KeyStore) -> dict[bytes, Client]:
        """Return the clients of all keys. That of an unchanged key stays the same object."""
        clients: dict[bytes, Client] = {}
        async for page in store.pages():
            for key in page:
                known = self._clients.get(key.sha256)
                same = known is not None and known.key == key
                clients[key.sha256] = known if known is not None and same else _client_of(key)
        return clients

    async def _note_used(self, store: KeyStore) -> None:
        now = time.monotonic()
        due = [name for name in self._used if now - self._noted_at.get(name, -_NOTE_S) >= _NOTE_S]
        used = {name: self._used[name] for name in due[:_NOTES]}
        if not used:
            return
        await store.note_used(used)
        recent = {name: at for name, at in self._noted_at.items() if now - at < _NOTE_S}
        self._noted_at = recent | dict.fromkeys(used, now)
        for name, at in used.items():
            if self._used[name] == at:  # it was not used again meanwhile
                del self._used[name]


class AdminKey:
    """The admin key, which needs no row in the store. Raises InvalidSettings."""

    def __init__(self, key: str | None, file: Path | None) -> None:
        self._file = file
        self._hash = hash_of(key) if key is not None else b""
        self.read()

    @classmethod
    def of(cls, settings: Settings) -> AdminKey | None:
        """Return the admin key of the settings, if they have one. Raises InvalidSettings."""
        key, file = settings.admin_key, settings.admin_key_file
        if key is not None and file is not None:
            raise InvalidSettings("set one of MYLLM_ADMIN_KEY and MYLLM_ADMIN_KEY_FILE, not both")
        if key is None and file is None:
            return None
        return cls(_checked(key.get_secret_value(), "MYLLM_ADMIN_KEY") if key else None, file)

    def read(self) -> None:
        """Read the file, if there is one. Raises InvalidSettings, and changes nothing then."""
        if self._file is None:
            return
        where = f"the file of MYLLM_ADMIN_KEY_FILE, {self._file},"
        try:
            with self._file.open("rb") as file:
                content = file.read(_MOST_BYTES + 1)
            self._hash = hash_of(_checked(content.decode(), where))
        except OSError as failure:
            raise InvalidSettings(f"{where} cannot be read: {failure.strerror}") from None
        except UnicodeDecodeError:
            raise InvalidSettings(f"{where} has characters that no key can have") from None

    def is_(self, hashed: bytes) -> bool:
        return hmac.compare_digest(hashed, self._hash)


def _checked(key: str, where: str) -> str:
    """Return the key as clients send it, without the line break at its end."""
    key = key.strip()
    if not key or len(key) > _MOST_BYTES:
        raise InvalidSettings(f"{where} must have a key of 1 to {_MOST_BYTES} characters")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise InvalidSettings(f"{where} has characters that no key can have")
    return key


def refused_client(key_name: str) -> Client:
    """Return who sent a request with a key that is not valid now: a client without its rights."""
    return Client(owner_of(key_name), key_name, key_name, role="user")


def _client_of(key: Key) -> Client:
    return Client(owner_of(key.name), key.name, key.name, key.max_priority, key.role, key)


_ADMIN_CLIENT: Final = Client(owner_of(ADMIN_KEY), ADMIN_KEY, ADMIN_KEY, role="admin")
