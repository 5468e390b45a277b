"""A store that cannot write raises one of two errors, whatever the cause and the database."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from myllm.errors import StoreFailed, Unavailable
from myllm.sessions.history import Message
from myllm.sessions.store import SessionStore
from tests.postgres import postgres_server, stop_postgres


@pytest.mark.needs_postgres
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["stopped", "killed"])
async def test_a_postgres_server_that_stopped(number: signal.Signals) -> None:
    with postgres_server() as url:
        store = SessionStore(url)
        await store.start()
        async with store.open("local", "s", 1) as session:
            turn = session.merged([Message("user", "hi")])
            await store.save(session, "demo", turn, Message("assistant", "hello"))
        async with store.open("local", "s", 1) as session:
            stop_postgres(url, number)
            turn = session.merged([Message("user", "again")])
            for _ in range(2):  # over the connection that has broken, and over none
                with pytest.raises((StoreFailed, Unavailable)):
                    await store.save(session, "demo", turn, Message("assistant", "hello"))
        with pytest.raises((StoreFailed, Unavailable)):
            async with store.open("local", "s", 1):
                pass
        await store.close()


async def test_a_damaged_or_removed_database(tmp_path: Path) -> None:
    database = tmp_path / "myllm.db"
    store = SessionStore(f"sqlite:///{database}")
    await store.start()
    await store.archive()
    async with store.open("local", None, 1) as session:
        turn = session.merged([Message("user", "hi")])
        await store.save(session, "demo", turn, Message("assistant", "hello"))
    await store.close()
    database.write_bytes(b"no database " * 1000)
    for path in tmp_path.glob("myllm.db-*"):
        path.unlink()
    broken = SessionStore(f"sqlite:///{database}")
    async with broken.open("local", None, 1) as session:
        turn = session.merged([Message("user", "hi")])
        with pytest.raises(StoreFailed):
            await broken.save(session, "demo", turn, Message("assistant", "hello"))
    await broken.close()
