"""API keys in memory, on a real store."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from myllm.api.http.keys import AdminKey, KeyRing
from myllm.errors import InvalidSettings, KeyRefused, ServeFailed
from myllm.gateway.client import Client
from myllm.sessions.keys import Key, KeyRules, KeyStore, hash_of
from myllm.sessions.store import SessionStore
from myllm.sessions.tables import keys as table
from myllm.settings import load_settings
from tests.postgres import postgres_server, stop_postgres

# The server promises two seconds; a busy machine may take longer.
SOON_S = 20.0


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SessionStore]:
    made = SessionStore(f"sqlite:///{tmp_path / 'myllm.db'}")
    await made.start()
    yield made
    await made.close()


@pytest.fixture
def keys(store: SessionStore) -> KeyStore:
    return KeyStore(store.database)


@asynccontextmanager
async def following(keys: KeyStore, admin: AdminKey | None = None) -> AsyncIterator[KeyRing]:
    ring = KeyRing(admin, may_be_open=True)
    tasks = ring.follow(keys, await keys.has_any())
    yield ring
    for task in tasks:
        task.cancel()


async def becomes(ring: KeyRing, secret: str, wanted: Client | str | None) -> None:
    """Wait until the key stands for a client, for none, or is refused in these words."""

    async def found() -> Client | str | None:
        try:
            return await ring.client([secret])
        except KeyRefused as refused:
            return refused.detail

    async with asyncio.timeout(SOON_S):
        while await found() != wanted:
            await asyncio.sleep(0.05)


async def test_a_key_stands_for_a_client_with_its_rules(keys: KeyStore) -> None:
    key, secret = await keys.create("ann", KeyRules(role="admin", max_priority=3))
    async with following(keys) as ring:
        client = await ring.client(["wrong", secret])
        assert client == Client("key:ann", "ann", "ann", 3, "admin", key)
        for wrong in ("", "ann", secret[:-1], secret.upper(), hash_of(secret).hex(), "\udcff"):
            assert await ring.client([wrong]) is None
        assert await ring.client([]) is None


async def test_changes_count_without_a_restart(keys: KeyStore) -> None:
    _, ann = await keys.create("ann", KeyRules())
    _, bob = await keys.create("bob", KeyRules())
    async with following(keys) as ring:
        before = await ring.client([bob])
        await keys.update("ann", {"disabled": True})
        await becomes(ring, ann, "The key 'ann' is disabled")
        await keys.update("ann", {"disabled": False})
        rotated, new = await keys.rotate("ann")
        await becomes(ring, new, Client("key:ann", "ann", "ann", 0, "user", rotated))
        assert await ring.client([ann]) is None
        await keys.revoke("ann")
        await becomes(ring, new, None)
        assert await ring.client([bob]) is before, "an unchanged key is the same client"


async def test_a_key_expires_by_the_clock(keys: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    _, secret = await keys.create("ann", KeyRules(expires=now + 100))
    async with following(keys) as ring:
        assert await ring.client([secret]) is not None
        monkeypatch.setattr("myllm.api.http.keys.time.time", lambda: now + 100)
        with pytest.raises(KeyRefused, match="The key 'ann' has expired"):
            await ring.client([secret])
        # Expiry is a time of the wall clock, so a clock that is set back makes it valid again ...
        monkeypatch.setattr("myllm.api.http.keys.time.time", lambda: now - 1e6)
        assert await ring.client([secret]) is not None
        # ... and changes nothing for keys that were revoked.
        await keys.revoke("ann")
        await becomes(ring, secret, None)


async def test_an_expired_key_beside_a_valid_one_is_no_obstacle(keys: KeyStore) -> None:
    _, ann = await keys.create("ann", KeyRules(disabled=True))
    _, bob = await keys.create("bob", KeyRules())
    async with following(keys) as ring:
        client = await ring.client([ann, bob])
        assert client is not None
        assert client.key_name == "bob"


async def test_the_first_key_closes_the_server_for_good(keys: KeyStore) -> None:
    async with following(keys) as ring:
        assert ring.is_open
        _, secret = await keys.create("ann", KeyRules())
        async with asyncio.timeout(SOON_S):
            while ring.is_open:
                await asyncio.sleep(0.05)
        assert await ring.client([secret]) is not None
        await keys.revoke("ann")
        await becomes(ring, secret, None)
        assert not ring.is_open
    async with following(keys) as ring:
        assert ring.is_open, "a restarted server finds no key"


async def test_a_store_with_a_key_is_closed_before_the_key_was_read(keys: KeyStore) -> None:
    _, secret = await keys.create("ann", KeyRules())
    ring = KeyRing(None, may_be_open=True)
    tasks = ring.follow(keys, has_keys=True)
    assert not ring.is_open
    waiting = asyncio.create_task(ring.client([secret]))
    await asyncio.sleep(0)
    assert not waiting.done(), "the key has not been read"
    assert await waiting is not None
    for task in tasks:
        task.cancel()


async def test_a_server_that_must_not_be_open_needs_a_key(keys: KeyStore) -> None:
    ring = KeyRing(None, may_be_open=False)
    with pytest.raises(ServeFailed, match=r"myllm key create NAME.*MYLLM_ALLOW_ANONYMOUS=true"):
        ring.follow(keys, has_keys=False)
    ring.check_start(has_keys=True)
    KeyRing(AdminKey("secret", None), may_be_open=False).check_start(has_keys=False)


async def test_the_last_use_is_stored_once_a_minute(
    keys: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, secret = await keys.create("ann", KeyRules())

    async def last_used() -> float | None:
        return (await keys.get("ann")).last_used

    async with following(keys) as ring:
        assert await last_used() is None
        before = time.time()
        await ring.client([secret])
        async with asyncio.timeout(SOON_S):
            while (first := await last_used()) is None:
                await asyncio.sleep(0.05)
        assert before <= first <= time.time()
        await ring.client([secret])
        await asyncio.sleep(2.5)
        assert await last_used() == first, "it was stored less than a minute ago"
        monkeypatch.setattr("myllm.api.http.keys._NOTE_S", 0.0)
        async with asyncio.timeout(SOON_S):
            while await last_used() == first:
                await asyncio.sleep(0.05)


async def test_keys_work_while_the_store_is_locked_and_the_log_says_so_once(
    keys: KeyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("myllm.sessions.connections.BUSY_S", 0.05)
    monkeypatch.setattr("myllm.loops._logged_at", {})
    _, secret = await keys.create("ann", KeyRules())
    with closing(sqlite3.connect(tmp_path / "myllm.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with structlog.testing.capture_logs() as logs:
            async with following(keys) as ring:
                for _ in range(8):
                    assert await ring.client([secret]) is not None
                    await asyncio.sleep(0.5)
        other.execute("ROLLBACK")
    [line] = [line for line in logs if line["event"] == "background work failed"]
    assert line["work"] == "noting when API keys were used"
    assert "locked by another program" in line["cause"]


@pytest.mark.needs_postgres
async def test_servers_on_one_postgres_see_each_other_s_changes_and_outlive_it() -> None:
    with postgres_server() as url:
        mine, other = SessionStore(url), SessionStore(url)
        for store in (mine, other):
            await store.start()
        keys, theirs = KeyStore(mine.database), KeyStore(other.database)
        async with following(keys) as ring, following(theirs) as their_ring:
            key, secret = await theirs.create("ann", KeyRules())
            for each in (ring, their_ring):
                await becomes(each, secret, Client("key:ann", "ann", "ann", 0, "user", key))
            changed = await keys.update("ann", {"max_priority": 1})
            for each in (ring, their_ring):
                await becomes(each, secret, Client("key:ann", "ann", "ann", 1, "user", changed))
            stop_postgres(url, signal.SIGKILL)
            await asyncio.sleep(1.5)
            for each in (ring, their_ring):
                assert await each.client([secret]) is not None
                assert await each.client(["wrong"]) is None
        for store in (mine, other):
            await store.close()


async def test_ten_thousand_keys(keys: KeyStore, store: SessionStore) -> None:
    def row(number: int) -> dict[str, Any]:
        name = f"key-{number}"
        return vars(Key(name=name, sha256=hash_of(name), created=1.0, models=("demo",)))

    rows = [row(number) for number in range(10_000)]
    database = await store.database()
    await database.write(lambda connection: connection.execute(table.insert(), rows))
    async with following(keys) as ring:
        assert await ring.client(["key-0"]) is not None
        began = time.perf_counter()
        for number in range(10_000):
            assert await ring.client([f"key-{number}"]) is not None
        each_s = (time.perf_counter() - began) / 10_000
        assert each_s < 200e-6, "20 us, ten times over"


# The admin key


async def test_the_admin_key_needs_no_row(keys: KeyStore) -> None:
    settings = load_settings(admin_key="root-key-0123456789")
    async with following(keys, AdminKey.of(settings)) as ring:
        assert not ring.is_open
        client = await ring.client(["root-key-0123456789"])
        assert client is not None
        assert (client.role, client.key_name, client.key) == ("admin", "(admin)", None)
        assert await ring.client(["root-key-012345678"]) is None


async def test_the_admin_key_s_file_is_read_again(keys: KeyStore, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("old-key\n")
    ring = KeyRing(AdminKey.of(load_settings(admin_key_file=file)), may_be_open=False)
    tasks = ring.follow(keys, has_keys=False)
    assert await ring.client(["old-key"]) is not None
    file.write_text("new-key")
    ring.reload()
    assert await ring.client(["old-key"]) is None
    assert await ring.client(["new-key"]) is not None
    file.write_text("")
    with structlog.testing.capture_logs() as logs:
        ring.reload()
    assert [line["event"] for line in logs] == ["admin key not reloaded"]
    assert await ring.client(["new-key"]) is not None
    for task in tasks:
        task.cancel()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read: No such file"),
        (b"", "must have a key of 1 to 4096 characters"),
        (b" \n", "must have a key of 1 to 4096 characters"),
        (b"x" * 10_000_000, "must have a key of 1 to 4096 characters"),
        (b"two words", "has characters that no key can have"),
        ("Schlüssel".encode(), "has characters that no key can have"),
        (b"\xff\xfe", "has characters that no key can have"),
    ],
)
def test_a_useless_admin_key_is_refused(tmp_path: Path, content: bytes | None, told: str) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidSettings, match=told) as refused:
        AdminKey.of(load_settings(admin_key_file=file))
    assert "MYLLM_ADMIN_KEY_FILE" in refused.value.detail
    assert "words" not in refused.value.detail


def test_two_admin_keys_are_refused(tmp_path: Path) -> None:
    settings = load_settings(admin_key="a", admin_key_file=tmp_path / "secret")
    with pytest.raises(InvalidSettings, match="not both"):
        AdminKey.of(settings)


def test_there_need_not_be_an_admin_key() -> None:
    assert AdminKey.of(load_settings()) is None
