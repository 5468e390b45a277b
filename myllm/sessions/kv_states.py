"""The KV state of a slot, and the record of a file that it was saved to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

from myllm.sessions.session import SessionRef

STATE_SUFFIX = ".kv"


@dataclass(frozen=True)
class CachedPrefix:
    """The part of a prompt that a slot has cached: its first `chars` characters, whose SHA-256 is
    `text_sha256`, and the tokens that the engine has read for them."""

    chars: int
    text_sha256: str
    tokens: tuple[int, ...]

    @classmethod
    def of(cls, text: str, tokens: tuple[int, ...]) -> CachedPrefix:
        """Return the prefix of an engine that has read `tokens`, which spell `text`."""
        return cls(len(text), _sha256(text), tokens)

    def begins(self, text: str) -> bool:
        """Whether `text` begins with this prefix."""
        return len(text) >= self.chars and _sha256(text[: self.chars]) == self.text_sha256


@dataclass(frozen=True)
class KvState:
    """The KV state of a session, and everything on which its use depends.

    `engine` names the engine and model that can read it. `used` is the time of the session's last
    turn, in seconds since 1970. `pieces` describe how its prompt begins, so that other sessions
    that begin alike can be found.
    """

    session: SessionRef
    engine: str
    prefix: CachedPrefix
    used: float
    pieces: tuple[str, ...] = ()

    @property
    def file_name(self) -> str:
        """The name of its file, which does not reveal the owner or the session."""
        return file_name(self.session, self.engine)


@dataclass(frozen=True)
class KvRecord:
    """A saved file: its state, and its hash and size when it was saved."""

    state: KvState
    sha256: str
    size_bytes: int


class KvRecords(Protocol):
    """A store of records, by the names of their files."""

    async def get(self, name: str) -> KvRecord | None: ...

    async def alike(self, owner: str, engine: str) -> list[tuple[str, tuple[str, ...]]]:
        """Return the names and pieces of the owner's most recently used files."""
        ...

    async def put(self, record: KvRecord) -> None: ...

    async def touch(self, name: str, used: float) -> None: ...

    async def remove(self, *names: str) -> None: ...

    async def of_session(self, session: SessionRef) -> list[str]: ...

    async def total_bytes(self) -> int:
        """Return the size of all files together, in bytes."""
        ...

    async def by_use(self) -> list[tuple[str, int]]:
        """Return the name and size in bytes of every file, the least recently used first."""
        ...

    async def orphaned(self) -> list[str]:
        """Return the names of the files whose session no longer exists."""
        ...


def file_name(session: SessionRef, engine: str) -> str:
    """Return the name of a session's file for one engine."""
    return _sha256(f"{engine}\0{session.owner}/{session.id}")[:48] + STATE_SUFFIX


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
