"""Saved KV states: files that an engine restores instead of reading the history again.

They are a cache; the conversation itself is in the database. An engine would restore a file with
flipped bytes without an error and produce wrong text. The hash of each file is therefore stored
when the file is saved, and checked before the file is restored.
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
# A share of the free disk and of what the files take themselves.
_DEFAULT_SHARE = 0.1
_MIB = 2**20
# A younger file without a record may still be on its way to get one.
_SETTLED_S = 120.0


class KvFiles:
    """The files in `folder`, which only the server's user can enter.

    `open_records` opens the records of a folder, by an id that only this folder has. `max_mb`
    limits the size of all files, in MiB: None stands for a tenth of the free disk plus what the
    files take, and with 0 no file is kept. Raises StoreFailed when the folder cannot be made; the
    methods raise what `open_records` raises.
    """

    def __init__(
        self,
        folder: Path,
        open_records: Callable[[str], Awaitable[KvRecords]],
        max_mb: int | None = None,
    ) -> None:
        self.folder = folder
        self._open_records = open_records
        self._opening = asyncio.Lock()
        self._opened: KvRecords | None = None
        self._max_mb = max_mb
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
        return self._max_mb != 0

    async def tidy(self) -> None:
        """Remove files that are no longer needed. A failure is logged."""
        try:
            await self._records()
        except (MyLLMError, OSError) as failure:
            _log.warning("states of conversations not tidied", cause=str(failure))

    async def new_aside(self) -> str:
        """Return a file name for an engine to save to until the file is known to be whole."""
        await self._records()
        self._saves += 1
        return f"{os.getpid()}-{self._saves}{_ASIDE}"

    async def keep(self, aside: str, state: KvState) -> None:
        """Keep the file `aside` as the state `state`, replacing an older state of the session.

        Raises OSError when the file is not there, and StoreFailed when its record cannot be
        written. The file is removed then: without a record it would only fill the disk.
        """
        sha256, size = await asyncio.to_thread(_seal, self.folder / aside)
        os.replace(self.folder / aside, self.folder / state.file_name)
        records = await self._records()
        try:
            await records.put(KvRecord(state, sha256, size))
        except MyLLMError:
            self.discard(state.file_name)
            raise
        await self._evict(records)

    def discard(self, aside: str) -> None:
        """Remove a file that was not kept; it may be gone already."""
        (self.folder / aside).unlink(missing_ok=True)

    async def checked(self, name: str) -> KvState | None:
        """Return the state in the file `name`, or None if it is missing or damaged."""
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
        """Return the owner's files that this engine can read, with the pieces of their prompts."""
        return await (await self._records()).alike(owner, engine)

    async def drop(self, *names: str) -> None:
        """Remove files and their records."""
        await self._drop(await self._records(), names)

    async def forget(self, session: SessionRef) -> None:
        """Remove every saved state of a session."""
        await self.drop(*await (await self._records()).of_session(session))

    async def _records(self) -> KvRecords:
        async with self._opening:
            if self._opened is None:
                records = await self._open_records(self._id)
                await self._sweep(records)
                await self._evict(records)
                self._opened = records
            return self._opened

    async def _sweep(self, records: KvRecords) -> None:
        """Remove files without a record, records without a file, and states of removed sessions.

        A killed server leaves all of them. Young files stay, because another server that shares the
        folder may be about to keep them.
        """
        await self._drop(records, await records.orphaned())
        recorded = {name for name, _ in await records.by_use()}
        existing = {path.name for path in self.folder.iterdir()}
        for path in [self.folder / name for name in existing - recorded]:
            if path.suffix in (STATE_SUFFIX, _ASIDE) and _age_s(path) > _SETTLED_S:
                path.unlink(missing_ok=True)
        if recorded - existing:
            await records.remove(*(recorded - existing))

    async def _evict(self, records: KvRecords) -> None:
        """Remove the least recently used files until the others are within the limit."""
        total = await records.total_bytes()
        if self._max_mb is not None:
            limit = self._max_mb * _MIB
        else:
            limit = int(_DEFAULT_SHARE * (shutil.disk_usage(self.folder).free + total))
        for name, size in await records.by_use() if total > limit else ():
            if total <= limit:
                return
            total -= size
            await self._drop(records, [name])

    async def _drop(self, records: KvRecords, names: Sequence[str]) -> None:
        for name in names:
            (self.folder / name).unlink(missing_ok=True)
        if names:
            await records.remove(*names)


def _id_of(folder: Path) -> str:
    """Return the id of a folder, which differs from that of the same path on another machine."""
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
    """Make the file private, and return its hash and size."""
    path.chmod(0o600)
    return _hash(path)
