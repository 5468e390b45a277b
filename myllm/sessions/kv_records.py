"""The records of saved states, in the database.

Servers may share a database, so every record belongs to one folder of files.
"""

from __future__ import annotations

import json
from array import array
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from myllm.sessions.database import Database
from myllm.sessions.kv_states import CachedPrefix, KvRecord, KvState
from myllm.sessions.session import SessionRef
from myllm.sessions.tables import kv_files, sessions

_MAX_ALIKE: Final = 64


class DatabaseRecords:
    """The records of the files in `folder`. Its methods raise what Database raises."""

    def __init__(self, database: Database, folder: str) -> None:
        self._database = database
        self._folder = folder
        self._here = kv_files.c.folder == folder

    async def get(self, name: str) -> KvRecord | None:
        query = sa.select(kv_files).where(self._here, kv_files.c.name == name)
        row = await self._database.read(lambda connection: connection.execute(query).first())
        return None if row is None else _record(row)

    async def alike(self, owner: str, engine: str) -> list[tuple[str, tuple[str, ...]]]:
        query = (
            sa.select(kv_files.c.name, kv_files.c.pieces)
            .where(self._here, kv_files.c.engine == engine, kv_files.c.owner == owner)
            .order_by(kv_files.c.used.desc())
            .limit(_MAX_ALIKE)
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [(name, tuple(json.loads(pieces))) for name, pieces in rows]

    async def put(self, record: KvRecord) -> None:
        state, prefix = record.state, record.state.prefix
        row = kv_files.insert().values(
            folder=self._folder,
            name=state.file_name,
            owner=state.session.owner,
            session=state.session.id,
            engine=state.engine,
            sha256=record.sha256,
            size_bytes=record.size_bytes,
            chars=prefix.chars,
            text_sha256=prefix.text_sha256,
            tokens=array("i", prefix.tokens).tobytes(),
            pieces=json.dumps(state.pieces),
            used=state.used,
        )

        def write(connection: Connection) -> None:
            connection.execute(self._named(kv_files.delete(), state.file_name))
            connection.execute(row)

        await self._database.write(write)

    async def touch(self, name: str, used: float) -> None:
        change = self._named(kv_files.update(), name).values(used=used)
        await self._database.write(lambda connection: connection.execute(change))

    async def remove(self, *names: str) -> None:
        change = kv_files.delete().where(self._here, kv_files.c.name.in_(names))
        await self._database.write(lambda connection: connection.execute(change))

    async def of_session(self, session: SessionRef) -> list[str]:
        mine = self._here, kv_files.c.owner == session.owner, kv_files.c.session == session.id
        query = sa.select(kv_files.c.name).where(*mine)
        return await self._database.read(lambda connection: list(connection.scalars(query)))

    async def total_bytes(self) -> int:
        query = sa.select(sa.func.sum(kv_files.c.size_bytes)).where(self._here)
        return await self._database.read(lambda connection: int(connection.scalar(query) or 0))

    async def by_use(self) -> list[tuple[str, int]]:
        query = sa.select(kv_files.c.name, kv_files.c.size_bytes).where(self._here)
        query = query.order_by(kv_files.c.used)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [(name, size) for name, size in rows]

    async def orphaned(self) -> list[str]:
        same = sessions.c.owner == kv_files.c.owner, sessions.c.id == kv_files.c.session
        exists = sa.select(sessions.c.key).where(*same).exists()
        query = sa.select(kv_files.c.name).where(self._here, ~exists)
        return await self._database.read(lambda connection: list(connection.scalars(query)))

    def _named(self, statement: Any, name: str) -> Any:
        return statement.where(self._here, kv_files.c.name == name)


def _record(row: Any) -> KvRecord:
    tokens = array("i", row.tokens)
    prefix = CachedPrefix(row.chars, row.text_sha256, tuple(tokens))
    pieces = tuple(json.loads(row.pieces))
    session = SessionRef(row.owner, row.session)
    state = KvState(session, row.engine, prefix, row.used, pieces)
    return KvRecord(state, row.sha256, row.size_bytes)
