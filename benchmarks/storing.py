"""What the store adds to a turn, and the time of a list, with 10,000 sessions of 50 messages."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from pathlib import Path

import httpx
import sqlalchemy as sa

from benchmarks.figures import Figure, median_of
from benchmarks.servers import kept_settings
from myllm.sessions.database import Database
from myllm.sessions.tables import messages, sessions
from tests.serving import serving, short_home

_SESSIONS = 10_000
_MESSAGES = 50
_ROUNDS = 100
_OWNER = "local"
_TEXT = "Some words of a message that is about as long as messages are in such conversations. "


def measure() -> list[Figure]:
    """Fill a database, then continue and list its sessions through the API."""
    with short_home() as home:
        path = home / "data" / "myllm.db"
        url = f"sqlite:///{path}"
        asyncio.run(_fill(url))
        size = f"the file has {path.stat().st_size / 1e6:.0f} MB"
        stored, sent = _ask(home)
        more = statistics.median(stored) - statistics.median(sent)
        return [
            median_of("first token, 50 messages that are stored", stored, unit="ms"),
            median_of("  50 messages that the client sends", sent, unit="ms"),
            Figure("  what the store adds", more, "ms", 2, "difference of the medians"),
            Figure("a list of 50 sessions, over HTTP", _list(home), "ms", 20, size),
        ]


async def _fill(url: str) -> None:
    database = Database(url)
    await database.prepare()
    await database.write(_fill_tables)
    await database.close()


def _fill_tables(connection: sa.Connection) -> None:
    keys = range(1, _SESSIONS + 1)
    connection.execute(sessions.insert(), [_session(key) for key in keys])
    for key in keys:
        connection.execute(messages.insert(), [_message(key, n) for n in range(_MESSAGES)])


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


def _ask(home: Path) -> tuple[list[float], list[float]]:
    """Milliseconds to the first token of the same prompts, with a stored history and with one that
    the client sends. Measured by turns, so that a busy machine slows both."""
    chance = random.Random(7)
    history = [{"role": ("user", "assistant")[n % 2], "content": _TEXT} for n in range(_MESSAGES)]
    question = {"role": "user", "content": "And then?"}
    stored, sent = [], []
    with serving(home, **kept_settings()) as server, server.client() as api:
        _first_token(api, [*history, question], None)
        for key in chance.sample(range(1, _SESSIONS + 1), _ROUNDS):
            stored.append(_first_token(api, [question], f"s{key}"))
            sent.append(_first_token(api, [*history, question], None))
    return stored, sent


def _first_token(
    api: httpx.Client, conversation: list[dict[str, str]], session: str | None
) -> float:
    body = {"model": "demo", "messages": conversation, "session_id": session}
    started, took = time.perf_counter(), 0.0
    options = {"temperature": 0, "max_tokens": 4}
    with api.stream("POST", "/api/chat", json=body | {"options": options}) as answer:
        for line in answer.raise_for_status().iter_lines():
            if not took and '"token":' in line:
                took = 1000 * (time.perf_counter() - started)
    assert took, "no token came"
    return took


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
