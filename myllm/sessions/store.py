"""The store of sessions: which request may change one, and when a turn is stored.

The database is opened in the background while the server starts, because loading SQLAlchemy takes
a while; earlier requests wait for it. For the same reason, modules that need SQLAlchemy are
imported inside of functions here. A turn is stored by a task of its own: a client that leaves in
the middle of its answer cannot stop it, and the next request gets the session only afterwards.
"""

from __future__ import annotations

import asyncio
import importlib
import re
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import structlog

from myllm.errors import Conflict, InvalidRequest, MyLLMError, StoreFailed, Unavailable
from myllm.loops import note_failure
from myllm.sessions import schema
from myllm.sessions.history import Merged, Message
from myllm.sessions.session import Session, SessionRef

if TYPE_CHECKING:  # see above: these import SQLAlchemy
    from myllm.sessions.archive import Archive
    from myllm.sessions.database import Database
    from myllm.sessions.kv_states import KvRecords

_log = structlog.get_logger(__name__)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")
_SQLITE = "sqlite:///"


class SessionStore:
    """Gives each session to one request at a time, and stores its turns.

    `url` is that of the database, as SQLAlchemy writes it: sqlite:///PATH or postgresql://…
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._locks: WeakValueDictionary[SessionRef, asyncio.Lock] = WeakValueDictionary()
        self._writes: set[asyncio.Task[None]] = set()
        self._opening: asyncio.Task[Database] | None = None
        self.before_removal: Callable[[SessionRef], Awaitable[None]] | None = None
        """Called and awaited before a session is removed, so that what is kept next to the database
        does not outlive it, even when this program is killed."""

    async def start(self) -> None:
        """Check the database; open it in the background if its schema needs no upgrade.

        Raises StoreFailed when it cannot be used; the server should not start then.
        """
        opening = self._opening = asyncio.create_task(self._open(), name="open the store")
        if not self._is_up_to_date():
            await asyncio.shield(opening)

    async def close(self) -> None:
        """Wait until all turns are stored, and close the database."""
        await asyncio.gather(*self._writes, return_exceptions=True)
        if self._opening is not None:
            database = (await asyncio.gather(self._opening, return_exceptions=True))[0]
            if not isinstance(database, BaseException):
                await database.close()

    async def database(self) -> Database:
        """Return the database once it is open.

        Raises StoreFailed or Unavailable when it cannot be opened.
        """
        opening = self._opening
        if opening is None or (opening.done() and opening.exception() is not None):
            opening = self._opening = asyncio.create_task(self._open(), name="open the store")
        return await asyncio.shield(opening)

    async def check(self) -> None:
        """Read from the database. Raises StoreFailed or Unavailable when that fails."""
        database = await self.database()
        await database.check()

    async def archive(self) -> Archive:
        """Return the archive of stored sessions, once the database is open."""
        database = await self.database()
        from myllm.sessions.archive import Archive  # _open has loaded it

        return Archive(database)

    async def kv_records(self, folder: str) -> KvRecords:
        """Return the records of the states that are saved in a folder."""
        database = await self.database()
        from myllm.sessions.kv_records import DatabaseRecords

        return DatabaseRecords(database, folder)

    @asynccontextmanager
    async def open(
        self, owner: str, session_id: str | None, timeout_s: float
    ) -> AsyncGenerator[Session, None]:
        """Hold the owner's session, or a new one, for this request alone until the context ends.

        Raises InvalidRequest for an id of a wrong form, Unavailable when another request holds the
        session for longer than `timeout_s`, and StoreFailed.
        """
        if session_id is not None:
            check_id(session_id)
        session = Session(SessionRef(owner, session_id or str(uuid.uuid4())))
        lock = self._locks.setdefault(session.ref, asyncio.Lock())
        try:
            await asyncio.wait_for(lock.acquire(), timeout_s)
        except TimeoutError:
            detail = f"Another request on session '{session.ref.id}' is still being answered"
            raise Unavailable(detail, retry_after_s=10) from None
        try:
            if session_id is not None:
                await self._load(session)
            yield session
        finally:
            if session.writing is None or session.writing.done():
                lock.release()
            else:
                session.writing.add_done_callback(lambda _: lock.release())

    async def save(self, session: Session, model: str, turn: Merged, answer: Message) -> None:
        """Store a turn with its answer, also when the caller is cancelled meanwhile.

        Raises StoreFailed, and Conflict when the session was changed or removed since it was
        loaded.
        """
        task = asyncio.create_task(self._append(session, model, turn, answer), name="store a turn")
        session.writing = task
        self._writes.add(task)
        task.add_done_callback(self._forget_write)
        await asyncio.shield(task)

    async def remove(self, ref: SessionRef) -> None:
        """Remove a session. Raises NotFound, and Conflict when it is being answered."""
        archive = await self.archive()
        async with self._unused(ref):
            await archive.check_exists(ref)
            if self.before_removal is not None:
                await self.before_removal(ref)
            await archive.remove(ref)

    async def take_back(self, ref: SessionRef, message: int) -> None:
        """Supersede the message with this key and all that follow it.

        Raises NotFound, and Conflict when the session is being answered.
        """
        archive = await self.archive()
        async with self._unused(ref):
            await archive.take_back(ref, message)

    @asynccontextmanager
    async def _unused(self, ref: SessionRef) -> AsyncGenerator[None, None]:
        """Keep requests away from a session. Raises Conflict when it is being answered."""
        lock = self._locks.setdefault(ref, asyncio.Lock())
        if lock.locked():
            raise Conflict(f"Session '{ref.id}' is being answered; try again when it is idle")
        async with lock:
            yield

    async def _load(self, session: Session) -> None:
        archive = await self.archive()
        loaded = await archive.load(session.ref)
        if loaded is None:
            return
        session.stored, messages = loaded
        session.left_out = session.stored.left_out
        session.system = next((m for m in reversed(messages) if m.leads), None)
        session.messages = [m for m in messages if not m.leads]

    async def _append(self, session: Session, model: str, turn: Merged, answer: Message) -> None:
        try:
            archive = await self.archive()
            await archive.append(session, model, turn, answer)
        except MyLLMError as failure:
            _log.error("turn not stored", session=session.ref.id, cause=failure.detail)
            raise

    def _forget_write(self, task: asyncio.Task[None]) -> None:
        self._writes.discard(task)
        failure = None if task.cancelled() else task.exception()
        if failure is not None and not isinstance(failure, MyLLMError):  # _append has logged it
            note_failure("storing a turn", failure)

    def _is_up_to_date(self) -> bool:
        """Whether the schema needs no upgrade. This is cheap, and known only of a SQLite file.

        Raises StoreFailed when the file cannot be used.
        """
        path = sqlite_path(self._url)
        if path is None:
            return False
        if not path.exists():
            return _can_create(path)
        revision = schema.sqlite_revision(path)
        schema.check_known(revision, str(path))
        return revision == schema.HEAD

    async def _open(self) -> Database:
        # In a thread, so that the server answers requests meanwhile.
        for module in ("archive", "key_rows"):
            await asyncio.to_thread(importlib.import_module, f"myllm.sessions.{module}")
        from myllm.sessions.database import Database

        database = Database(self._url)
        await database.prepare()
        return database


def check_id(session_id: str) -> None:
    """Raise InvalidRequest for an id of a wrong form."""
    if not _ID.fullmatch(session_id):
        raise InvalidRequest(
            "session_id must be 1 to 128 characters of A-Z a-z 0-9 _ . : - "
            "and begin with a letter or digit"
        )


def _can_create(path: Path) -> bool:
    """Create a new, empty file, and return whether that worked; if not, opening it raises why."""
    try:
        schema.make_private(path)
    except OSError:
        return False
    return True


def sqlite_path(url: str) -> Path | None:
    """Return the file of a SQLite URL, or None for a PostgreSQL URL.

    Raises StoreFailed for any other URL.
    """
    if url.startswith(_SQLITE):
        return Path(url.removeprefix(_SQLITE))
    if not url.startswith(("postgresql://", "postgres://", "postgresql+asyncpg://")):
        raise StoreFailed("MYLLM_DATABASE_URL must begin with sqlite:/// or postgresql://")
    return None
