"""API keys for tests: stored before a server starts, or while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from myllm.sessions.keys import KeyRules, KeyStore, Role, hash_of
from myllm.sessions.store import SessionStore

T = TypeVar("T")


def add_keys(home: Path, role: Role = "user", **secrets: str) -> None:
    """Store keys by their names, without limits, for the server whose directory is `home`."""
    for name, secret in secrets.items():
        add_key(home, name, secret, KeyRules(role=role))


def add_key(home: Path, name: str, secret: str, rules: KeyRules) -> None:
    """Store one key for the server whose directory is `home`."""
    change_keys(home, lambda keys: keys.add_hashed(name, hash_of(secret), rules))


def change_keys(home: Path, change: Callable[[KeyStore], Coroutine[Any, Any, T]]) -> T:
    """Return what `change` returns for the keys of the server whose directory is `home`."""

    async def run() -> T:
        store = SessionStore(f"sqlite:///{home / 'data' / 'myllm.db'}")
        await store.start()
        try:
            return await change(KeyStore(store.database))
        finally:
            await store.close()

    # In a thread of its own, since the test may run in an event loop.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, run()).result()
