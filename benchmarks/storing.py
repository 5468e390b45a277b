"""What the store adds to a turn, and how long a list takes, with 10,000 sessions of 50 messages."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

from benchmarks.figures import Figure, median_of
from benchmarks.servers import kept_settings
from myllm.sessions.archive import Archive
from myllm.sessions.database import Database
from myllm.sessions.store import SessionStore
from myllm.sessions.tables import messages, sessions
from tests.serving import serving, short_home

_SESSIONS = 10_000
_MESSAGES = 50
_ROUNDS = 300
_OWNER = "local"
_TEXT = "Some words of a message that is about as long as messages are in such conversations. " * 3


def measure() -> list[Figure]:
    """Fill a database, then take hold of sessions in it, and list them through the API."""
    with short_home() as home:
        path = home / "data" / "myllm.db"
        url = f"sqlite:///{path}"
        asyncio.run(_fill(url))
        size = f"the file has {path.stat().st_size / 1e6:.0f} MB"
        opened, missed = asyncio.run(_open_some(url))
        return [
            median_of("taking hold of a session of 50 messages", opened, 2, "ms"),
            median_of("taking hold of a new session", missed, 2, "ms"),
            Figure("a list of 50 sessions, over HTTP", _list(home), "ms", 20, size),
        ]


async def _fill(url: str) -> None:
    database = Database(url)
    await database.prepare()
    async with database.writing() as connection:
        rows = [_session(key) for key in range(1, _SESSIONS + 1)]
        await connection.execute(sessions.insert(), rows)
        for key in range(1, _SESSIONS + 1):
            await connection.execute(
                messages.insert(), [_message(key, n) for n in range(_MESSAGES)]
            )
    await database.close()


def _session(key: int) -> dict[str, object]:
    return {
        "key": key,
        "owner": _OWNER,
        "id": f"s{key}",
        "model": "demo",
        "title": f"Conversation {key}",
        "created": 1.7e9 + key,
        "updated": 1.7e9 + key,
        "messages": _MESSAGES,
        "size_bytes": _MESSAGES * len(_TEXT),
        "left_out": 0,
        "version": 1,
    }


def _message(session: int, number: int) -> dict[str, object]:
    return {
        "session": session,
        "role": ("user", "assistant")[number % 2],
        "content": _TEXT,
        "tokens": 60,
        "partial": False,
        "superseded": False,
        "created": 1.7e9,
    }


async def _open_some(url: str) -> tuple[list[float], list[float]]:
    """Milliseconds until a request has its session: a known one, a new one."""
    store = SessionStore(url)
    await store.start()
    await store.archive()
    chance = random.Random(7)

    async def held(session_id: str) -> float:
        started = time.perf_counter()
        async with store.open(_OWNER, session_id, 1):
            return 1000 * (time.perf_counter() - started)

    known = [await held(f"s{chance.randint(1, _SESSIONS)}") for _ in range(_ROUNDS)]
    new = [await held(f"new{number}") for number in range(_ROUNDS)]
    found, _ = await Archive(await store.database()).page(_OWNER, 1)
    assert found, "nothing was filled"
    await store.close()
    return known, new


def _list(home: Path) -> float:
    """Milliseconds of the median request."""
    with serving(home, **kept_settings()) as server, server.client() as api:
        took = []
        for _ in range(50):
            started = time.perf_counter()
            page = api.get("/api/sessions", params={"limit": 50}).raise_for_status().json()
            took.append(1000 * (time.perf_counter() - started))
            assert len(page["sessions"]) == 50
        return sorted(took)[len(took) // 2]
