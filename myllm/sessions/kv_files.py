"""Saved states of conversations: files that an engine reads back instead of the history.

They are a cache; the conversation itself is in the database. A file with flipped bytes would be
restored without an error and give wrong text, so its hash is stored when it is saved, and
checked before it is restored.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import structlog

from myllm.errors import MyLLMError, StoreFailed
from myllm.sessions.kv_states import STATE_SUFFIX, KvRecord, KvRecords, KvState
from myllm.sessions.session import SessionRef

_log = structlog.get_logger(__name__)
_ASIDE = ".saving"
_FOLDER_ID = "folder-id"
# Of what is free on the disk, and what the files take themselves.
_DEFAULT_SHARE = 0.1
_MIB = 2**20
_SETTLED_S = 120.0


class KvFiles:
    """The files in `folder`, which only its owner can enter.

    `open_records` gives the records of a folder, by an id that only this folder has. `most_mb`
    bounds the files, in MiB; None: a tenth of the free disk and what they take; 0: none are
    kept. Raises StoreFailed when the folder cannot be made; the methods raise what
    `open_records` raises.
    """

    def __init__(
        self,
        folder: Path,
        open_records: Callable[[str], Awaitable[KvRecords]],
        most_mb: int | None = None,
    ) -> None:
        self.folder = folder
        self._open_records = open_records
        self._opening = asyncio.Lock()
        self._opened: KvRecords | None = None
        self._most_mb = most_mb
        self._saves = 0
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)
            self._id = _id_of(folder)
        except OSError as failure:
            raise StoreFailed(f"{folder} cannot be made: {failure.strerror}") from failure

    @property
    def keeps(self) -> bool:
        """Whether any file is kept."""
        return self._most_mb != 0

    async def tidy(self) -> None:
        """Remove what nobody needs any more; a failure to is logged."""
        try:
            await self._records()
        except (MyLLMError, OSError) as failure:
            _log.warning("states of conversations not tidied", cause=str(failure))

    async def new_aside(self) -> str:
        """A file name for an engine to save to, before it is known to be whole."""
        await self._records()
        self._saves += 1
        return f"{os.getpid()}-{self._saves}{_ASIDE}"

    async def keep(self, aside: str, state: KvState) -> None:
        """Take in what an engine has saved; an older state of the session is replaced.

        Raises OSError when the file is not there, and StoreFailed; then there is no file, which
        would only take room on a disk that is full.
        """
        sha256, size = await asyncio.to_thread(_seal, self.folder / aside)
        os.replace(self.folder / aside, self.folder / state.file_name)
        records = await self._records()
        try:
            await records.put(KvRecord(state, sha256, size))
        except MyLLMError:
            self.discard(state.file_name)
            raise
        await self._make_room(records)

    def discard(self, aside: str) -> None:
        """Remove what was not saved whole."""
        (self.folder / aside).unlink(missing_ok=True)

    async def checked(self, name: str) -> KvState | None:
        """What is in the file `name`, if it is there and still what was saved."""
        records = await self._records()
        record = await records.get(name)
        if record is None:
            return None
        try:
            sha256, _ = await asyncio.to_thread(_hash, self.folder / name)
        except OSError as failure:
            sha256 = str(failure.strerror)
        if sha256 != record.sha256:
            _log.warning("damaged state of a conversation dropped", file=name, found=sha256)
            await self.drop(name)
            return None
        await records.touch(name, time.time())
        return record.state

    async def alike(self, owner: str, engine: str) -> list[tuple[str, tuple[str, ...]]]:
        """Files of the same owner that this engine can read, and how their prompts begin."""
        return await (await self._records()).alike(owner, engine)

    async def drop(self, *names: str) -> None:
        """Remove files and their records."""
        await self._drop(await self._records(), names)

    async def forget(self, session: SessionRef) -> None:
        """Remove every state of a session."""
        await self.drop(*await (await self._records()).of_session(session))

    async def _records(self) -> KvRecords:
        async with self._opening:
            if self._opened is None:
                records = await self._open_records(self._id)
                await self._sweep(records)
                await self._make_room(records)
                self._opened = records
            return self._opened

    async def _sweep(self, records: KvRecords) -> None:
        """Remove files without a record, and records without a file: a kill leaves both.

        Not those that somebody else may be just about to take in. What is left of a removed
        session goes, too.
        """
        await self._drop(records, await records.of_nobody())
        known = {name for name, _ in await records.by_use()}
        there = {path.name for path in self.folder.iterdir()}
        for path in [self.folder / name for name in there - known]:
            if path.suffix in (STATE_SUFFIX, _ASIDE) and _age_s(path) > _SETTLED_S:
                path.unlink(missing_ok=True)
        if known - there:
            await records.remove(*(known - there))

    async def _make_room(self, records: KvRecords) -> None:
        """The least recently used go first."""
        taken = await records.taken()
        if self._most_mb is not None:
            most = self._most_mb * _MIB
        else:
            most = int(_DEFAULT_SHARE * (shutil.disk_usage(self.folder).free + taken))
        for name, size in await records.by_use() if taken > most else ():
            if taken <= most:
                return
            taken -= size
            await self._drop(records, [name])

    async def _drop(self, records: KvRecords, names: Sequence[str]) -> None:
        for name in names:
            (self.folder / name).unlink(missing_ok=True)
        if names:
            await records.remove(*names)


def _id_of(folder: Path) -> str:
    """A name that no other folder has, also none of another machine with the same path."""
    path = folder / _FOLDER_ID
    if not path.exists():
        aside = folder / f"{_FOLDER_ID}.{os.getpid()}"
        aside.write_text(uuid.uuid4().hex)
        os.replace(aside, path)
    return path.read_text()


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _hash(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return digest.hexdigest(), file.tell()


def _seal(path: Path) -> tuple[str, int]:
    """Make the file private and hash it."""
    path.chmod(0o600)
    return _hash(path)
