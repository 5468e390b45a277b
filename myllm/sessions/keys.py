"""API keys: what each may do, and the store of them, which servers may share.

Only the SHA-256 of a key is stored, so the store gives access to nothing. The functions that need
SQLAlchemy are in `key_rows.py`, which is loaded when the database is open.
"""

from __future__ import annotations

import hashlib
import math
import re
import secrets
import time
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from myllm import limits
from myllm.errors import InvalidRequest
from myllm.sessions import schema
from myllm.sessions.store import sqlite_path

if TYPE_CHECKING:  # loading SQLAlchemy takes a while
    from sqlalchemy.engine import Connection

    from myllm.sessions.database import Database

Role = Literal["user", "admin", "metrics"]
"""What a key is for: to use models, to operate the server as well, or to read metrics alone."""

ROLES: Final[tuple[Role, ...]] = get_args(Role)
HIGHEST_PRIORITY: Final = 10
"""Requests have a priority of -10 to 10."""

_PREFIX: Final = "sk-myllm-"  # clients of OpenAI expect "sk-", and scanners for secrets a name
_SECRET: Final = re.compile(rf"{_PREFIX}[\w-]+")
_PUNCTUATION: Final = frozenset("._-@")
_MAX_NAME: Final = 64
_PAGE: Final = 200
_MAX_MODELS: Final = 256
_MAX_PATTERN: Final = 256


@dataclass(frozen=True, kw_only=True)
class KeyRules:
    """What a key may do.

    `models` are names, aliases and patterns (`*`, `?`, `[…]`) of the models that exist for the key;
    empty: all. A limit of None is none. From the time `expires` on (seconds since 1970, by the
    clock of the server) the key is refused.
    """

    role: Role = "user"
    models: tuple[str, ...] = ()
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    max_priority: int = 0
    expires: float | None = None
    disabled: bool = False

    def check(self) -> None:
        """Raise InvalidRequest, which names the rule that makes no sense."""
        if self.role not in ROLES:
            raise InvalidRequest(f"role must be one of {', '.join(ROLES)} (got '{self.role}')")
        if len(self.models) > _MAX_MODELS:
            raise InvalidRequest(f"models must have at most {_MAX_MODELS} entries")
        for pattern in self.models:
            _check_pattern(pattern)
        for name in ("requests_per_minute", "tokens_per_minute", "concurrent_requests"):
            limit = getattr(self, name)
            if limit is not None and not 1 <= limit <= limits.WHOLE:
                raise InvalidRequest(f"{name} must be 1 to {limits.WHOLE} (got {limit})")
        if not -HIGHEST_PRIORITY <= self.max_priority <= HIGHEST_PRIORITY:
            raise InvalidRequest(
                f"max_priority must be -{HIGHEST_PRIORITY} to {HIGHEST_PRIORITY} "
                f"(got {self.max_priority})"
            )
        if self.expires is not None and not math.isfinite(self.expires):
            raise InvalidRequest("expires must be a time in seconds since 1970")


@dataclass(frozen=True, kw_only=True)
class Key(KeyRules):
    """A key as it is stored. `last_used` is at most a minute old; None: never."""

    name: str
    sha256: bytes
    created: float
    last_used: float | None = field(default=None, compare=False)

    def is_valid(self, now: float) -> bool:
        """Whether requests with this key are served at the time `now`."""
        return not self.disabled and (self.expires is None or now < self.expires)


class KeyStore:
    """The keys in the store, whose `database` may still be opening.

    All methods raise StoreFailed and Unavailable when the database cannot be used, and
    InvalidRequest for a name that no key can have. Each change counts `change_number` up in the
    same transaction, so that servers that share the store notice it.

    With `keep_admin`, a change raises Conflict if after it the last admin key stops working sooner
    than before, or the first key is not an admin's or expires: no client could manage the server.
    """

    def __init__(self, database: Callable[[], Awaitable[Database]]) -> None:
        self._database = database

    async def all(self) -> list[Key]:
        """Return all keys, by name."""
        return [key async for page in self.pages() for key in page]

    async def pages(self) -> AsyncIterator[list[Key]]:
        """Yield all keys, by name, in pages that take the event loop a few milliseconds each."""
        after = ""
        while page := await self.page(after, _PAGE):
            yield page
            after = page[-1].name

    async def page(self, after: str, limit: int) -> list[Key]:
        """Return the next keys behind the name `after`, by name, at most `limit`."""
        database = await self._database()
        from myllm.sessions import key_rows

        def read(connection: Connection) -> list[Key]:
            return [Key(**row) for row in key_rows.page(connection, after, limit)]

        return await database.read(read)

    async def has_any(self) -> bool:
        """Whether there is a key."""
        return bool(await self.page("", 1))

    async def get(self, name: str) -> Key:
        """Return the key of this name. Raises NotFound."""
        name, database = checked_name(name), await self._database()
        from myllm.sessions import key_rows

        return Key(**await database.read(lambda connection: key_rows.existing(connection, name)))

    async def change_number(self) -> int:
        """Return a number that differs after each change of a key; 0 if there never was one."""
        database = await self._database()
        from myllm.sessions import key_rows

        return await database.read(key_rows.change_number)

    async def create(
        self, name: str, rules: KeyRules, *, keep_admin: bool = False
    ) -> tuple[Key, str]:
        """Make a key, and return it with its secret, which is stored nowhere.

        Raises Conflict when the name is taken, and InvalidRequest.
        """
        secret = new_secret()
        key = await self.add_hashed(name, hash_of(secret), rules, keep_admin=keep_admin)
        return key, secret

    async def add_hashed(
        self,
        name: str,
        sha256: bytes,
        rules: KeyRules = KeyRules(),
        *,
        keep_admin: bool = False,
    ) -> Key:
        """Store a key of which only the hash is known.

        Raises Conflict when the name or the key is taken, and InvalidRequest.
        """
        now = time.time()
        rules.check()
        _check_expiry(rules.expires, now)
        key = Key(name=checked_name(name), sha256=sha256, created=now, **vars(rules))
        database = await self._database()
        from myllm.sessions import key_rows

        def add(connection: Connection) -> None:
            key_rows.add(connection, vars(key))

        await database.write(key_rows.keeping_an_admin(add) if keep_admin else add)
        return key

    async def update(
        self, name: str, changes: Mapping[str, Any], *, keep_admin: bool = False
    ) -> Key:
        """Change the named fields of KeyRules, and return the key as it is now.

        Changes that another server makes to other fields at the same time are kept. Raises
        NotFound, and InvalidRequest.
        """
        unknown = changes.keys() - KeyRules.__annotations__.keys()
        if unknown:
            raise InvalidRequest(f"A key has no '{min(unknown)}' that can be changed")
        _check_expiry(changes.get("expires"), time.time())
        replace(KeyRules(), **changes).check()
        name, database = checked_name(name), await self._database()
        from myllm.sessions import key_rows

        def change(connection: Connection) -> Key:
            return Key(**key_rows.change(connection, name, changes))

        return await database.write(key_rows.keeping_an_admin(change) if keep_admin else change)

    async def rotate(self, name: str) -> tuple[Key, str]:
        """Give the key a new secret, and return both; the old secret is refused from now on.

        Raises NotFound.
        """
        secret = new_secret()
        change = {"sha256": hash_of(secret)}
        name, database = checked_name(name), await self._database()
        from myllm.sessions import key_rows

        row = await database.write(lambda connection: key_rows.change(connection, name, change))
        return Key(**row), secret

    async def revoke(self, name: str, *, keep_admin: bool = False) -> None:
        """Remove the key of this name. Raises NotFound."""
        name, database = checked_name(name), await self._database()
        from myllm.sessions import key_rows

        def remove(connection: Connection) -> None:
            key_rows.remove(connection, name)

        await database.write(key_rows.keeping_an_admin(remove) if keep_admin else remove)

    async def note_used(self, used: Mapping[str, float]) -> None:
        """Store when each named key was used last. This is no change that servers must notice."""
        database = await self._database()
        from myllm.sessions import key_rows

        await database.write(lambda connection: key_rows.note_used(connection, used))


def sqlite_has_keys(url: str) -> bool | None:
    """Whether a store in a SQLite file has any key; None for PostgreSQL. Raises StoreFailed.

    This does not load SQLAlchemy, so it takes a millisecond.
    """
    path = sqlite_path(url)
    return None if path is None else schema.sqlite_has_rows(path, "keys")


def new_secret() -> str:
    """Return a new key, as a client sends it."""
    return _PREFIX + secrets.token_urlsafe(32)


def hash_of(secret: str) -> bytes:
    """Return what is stored of a key."""
    return hashlib.sha256(secret.encode(errors="surrogateescape")).digest()


def without_keys(text: str) -> str:
    """Return `text` with every key that MyLLM has made masked."""
    return _SECRET.sub(f"{_PREFIX}***", text) if _PREFIX in text else text


def checked_name(name: str) -> str:
    """Return a key's name in the one form in which it is stored.

    Raises InvalidRequest for a key, and unless it is 1 to 64 letters and digits of any script and
    `. _ - @`, and begins with a letter or digit.
    """
    if name.startswith(_PREFIX):  # the error and the log must not repeat it
        raise InvalidRequest("this is a key and not its name; 'myllm key list' shows the names")
    name = unicodedata.normalize("NFC", name) if len(name) <= 2 * _MAX_NAME else ""
    if not (0 < len(name) <= _MAX_NAME and _is_letter(name[0]) and all(map(_is_allowed, name))):
        raise InvalidRequest(
            f"a key's name is 1 to {_MAX_NAME} letters and digits and . _ - @, and begins with a "
            "letter or digit"
        )
    return name


def _is_letter(char: str) -> bool:
    return unicodedata.category(char)[0] in "LN"


def _is_allowed(char: str) -> bool:
    # Marks are parts of letters in many scripts.
    return char in _PUNCTUATION or unicodedata.category(char)[0] in "LNM"


def _check_pattern(pattern: str) -> None:
    if not (0 < len(pattern) <= _MAX_PATTERN and pattern.isprintable()):
        raise InvalidRequest(f"a model's name or pattern has 1 to {_MAX_PATTERN} printable letters")
    if pattern.count("[") != pattern.count("]"):
        raise InvalidRequest(f"'{pattern}' is no pattern of model names: a [ has no ]")


def _check_expiry(expires: float | None, now: float) -> None:
    if expires is not None and expires <= now:
        raise InvalidRequest(
            "expires must be in the future; disable or revoke a key to stop it now"
        )
