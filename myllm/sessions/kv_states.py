"""What a slot remembers, and what is known of a file that it was saved to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

from myllm.sessions.session import SessionRef

STATE_SUFFIX = ".kv"


@dataclass(frozen=True)
class CachedPrefix:
    """What a slot's state stands for: the first `chars` characters of a prompt, whose SHA-256 is
    `text_sha256`, and the tokens that the engine has read for them."""

    chars: int
    text_sha256: str
    tokens: tuple[int, ...]

    @classmethod
    def of(cls, text: str, tokens: tuple[int, ...]) -> CachedPrefix:
        """What an engine remembers that has read `tokens`, which spell `text`."""
        return cls(len(text), _sha256(text), tokens)

    def begins(self, text: str) -> bool:
        """Whether `text` goes on from what is remembered."""
        return len(text) >= self.chars and _sha256(text[: self.chars]) == self.text_sha256


@dataclass(frozen=True)
class KvState:
    """What a file is to be the state of: a session, and all that the state depends on.

    `used` is when the conversation last went on, in seconds since 1970; `pieces` tell how its
    prompt begins, for other conversations that begin alike.
    """

    session: SessionRef
    engine: str
    prefix: CachedPrefix
    used: float
    pieces: tuple[str, ...] = ()

    @property
    def file_name(self) -> str:
        """A name that tells nobody whose conversation it is."""
        return file_name(self.session, self.engine)


@dataclass(frozen=True)
class KvRecord:
    """One file as it was saved."""

    state: KvState
    sha256: str
    size_bytes: int


class KvRecords(Protocol):
    """Where the records are kept, by their files' names."""

    async def get(self, name: str) -> KvRecord | None: ...

    async def alike(self, owner: str, engine: str) -> list[tuple[str, tuple[str, ...]]]:
        """The names and pieces of the owner's files used last."""
        ...

    async def put(self, record: KvRecord) -> None: ...

    async def touch(self, name: str, used: float) -> None: ...

    async def remove(self, *names: str) -> None: ...

    async def of_session(self, session: SessionRef) -> list[str]: ...

    async def taken(self) -> int:
        """Bytes of all files together."""
        ...

    async def by_use(self) -> list[tuple[str, int]]:
        """Name and size in bytes of every file, the least recently used first."""
        ...

    async def of_nobody(self) -> list[str]:
        """The names of files whose session is no more."""
        ...


def file_name(session: SessionRef, engine: str) -> str:
    """The name of a session's file for one engine."""
    return _sha256(f"{engine}\0{session.owner}/{session.id}")[:48] + STATE_SUFFIX


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
