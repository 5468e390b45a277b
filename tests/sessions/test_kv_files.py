"""Files of KV states and their records: of servers that share a database, of removed sessions."""

from __future__ import annotations

from pathlib import Path

from myllm.sessions.archive import Archive
from myllm.sessions.history import Message
from myllm.sessions.kv_files import KvFiles
from myllm.sessions.kv_states import CachedPrefix, KvState
from myllm.sessions.session import SessionRef
from myllm.sessions.store import SessionStore

STATE = KvState(SessionRef("local", "s"), "engine", CachedPrefix.of("hi", (1, 2)), 1.0)


async def keep(files: KvFiles) -> None:
    aside = await files.new_aside()
    (files.folder / aside).write_bytes(b"state")
    await files.keep(aside, STATE)


async def test_servers_that_share_a_database_keep_their_own_files(
    store: SessionStore, archive: Archive, tmp_path: Path
) -> None:
    await archive.add(SessionRef("local", "s"), "demo", "", [Message("user", "hi")])
    one, other = (KvFiles(tmp_path / name, store.kv_records) for name in ("one", "other"))
    await keep(one)
    await keep(other)
    again = KvFiles(tmp_path / "one", store.kv_records)
    assert await again.checked(STATE.file_name) == STATE
    assert await other.checked(STATE.file_name) == STATE
    await archive.remove(SessionRef("local", "s"))
    assert await other.checked(STATE.file_name) is None


async def test_files_of_a_removed_session_are_tidied_away(
    store: SessionStore, tmp_path: Path
) -> None:
    await keep(KvFiles(tmp_path / "kv", store.kv_records))
    await KvFiles(tmp_path / "kv", store.kv_records).tidy()
    assert list((tmp_path / "kv").glob("*.kv")) == []


async def test_a_limit_of_zero_keeps_no_file(
    store: SessionStore, archive: Archive, tmp_path: Path
) -> None:
    await archive.add(SessionRef("local", "s"), "demo", "", [Message("user", "hi")])
    await keep(KvFiles(tmp_path / "kv", store.kv_records))
    await KvFiles(tmp_path / "kv", store.kv_records, 0).tidy()
    assert list((tmp_path / "kv").glob("*.kv")) == []
