"""The schema: made by migrations, checked at start, copied before it changes."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from myllm.errors import InvalidRequest, MyLLMError, StoreFailed, Unavailable
from myllm.sessions import schema
from myllm.sessions.history import Message
from myllm.sessions.keys import KeyRules, KeyStore
from myllm.sessions.session import SessionRef
from myllm.sessions.store import SessionStore, sqlite_path
from myllm.sessions.tables import metadata

_SCRIPTS = Path(schema.__file__).parent / "migrations"


def scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    return ScriptDirectory.from_config(config)


def execute(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


async def store_one_turn(url: str) -> None:
    store = SessionStore(url)
    await store.start()
    async with store.open("local", "s", 1) as session:
        turn = session.merged([Message("user", "hi")])
        await store.save(session, "demo", turn, Message("assistant", "hello"))
    await store.close()


@pytest.fixture
async def database(tmp_path: Path) -> Path:
    """A SQLite file with one session."""
    path = tmp_path / "myllm.db"
    await store_one_turn(f"sqlite:///{path}")
    return path


def test_the_program_knows_every_migration() -> None:
    found = [script.revision for script in scripts().walk_revisions()]
    assert tuple(reversed(found)) == schema.REVISIONS


def differences(connection: sa.Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, metadata))


def made_by_migrations(connection: sa.Connection) -> list[object]:
    metadata.drop_all(connection)
    connection.execute(sa.text("DROP TABLE alembic_version"))
    schema.upgrade(connection)
    return differences(connection)


async def test_a_new_database_has_what_the_migrations_make(store: SessionStore) -> None:
    database = await store.database()
    assert await database.write(differences) == []
    assert await database.write(made_by_migrations) == []
    version = sa.text("SELECT version_num FROM alembic_version")
    assert await database.read(lambda connection: connection.scalar(version)) == schema.HEAD


async def test_files_are_for_their_owner_only(database: Path) -> None:
    assert stat.S_IMODE(database.stat().st_mode) == 0o600


async def test_a_newer_database_is_refused(store: SessionStore, url: str) -> None:
    newer = sa.text("UPDATE alembic_version SET version_num = '9999'")
    await (await store.database()).write(lambda connection: connection.execute(newer))
    with pytest.raises(StoreFailed, match=r"made by a newer MyLLM \(its schema is 9999, "):
        await SessionStore(url).start()


async def test_an_older_database_is_copied_before_it_is_changed(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(database, "UPDATE alembic_version SET version_num = '0000'")
    monkeypatch.setattr(schema, "REVISIONS", ("0000", *schema.REVISIONS))
    monkeypatch.setattr(schema, "upgrade", lambda connection: None)
    store = SessionStore(f"sqlite:///{database}")
    await store.start()
    await store.close()
    [copy] = database.parent.glob("myllm.db.before-*")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert schema.sqlite_revision(copy) == "0000"
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT count(*) FROM messages").fetchone() == (2,)


async def test_a_database_without_keys_gets_their_tables_and_keeps_its_sessions(
    database: Path,
) -> None:
    for table in ("keys", "key_changes", "usage", "usage_writes"):
        execute(database, f"DROP TABLE {table}")
    execute(database, "UPDATE alembic_version SET version_num = '0001'")
    store = SessionStore(f"sqlite:///{database}")
    await store.start()
    keys = KeyStore(store.database)
    key, _ = await keys.create("ann", KeyRules())
    assert await keys.all() == [key]
    async with store.open("local", "s", 1) as session:
        assert [message.content for message in session.messages] == ["hi", "hello"]
    await store.close()


@pytest.mark.parametrize("content", [b"no database" * 200, b"SQLite format 3\0" + b"\xff" * 5000])
async def test_a_damaged_file_is_reported_and_left_alone(database: Path, content: bytes) -> None:
    database.write_bytes(content)
    with pytest.raises(StoreFailed, match=r"myllm\.db cannot be used.*put a copy"):
        await SessionStore(f"sqlite:///{database}").start()
    assert database.read_bytes() == content


async def test_damage_inside_the_file_is_reported_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "myllm.db"
    store = SessionStore(f"sqlite:///{path}")
    await store.start()
    archive = await store.archive()
    for number in range(50):
        await archive.add(
            SessionRef("local", f"s{number}"), "demo", "", [Message("user", "x" * 2000)]
        )
    await store.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * (size // 2))
    store = SessionStore(f"sqlite:///{path}")
    await store.start()
    with pytest.raises(StoreFailed, match=r"malformed; stop the server and put a copy"):
        await (await store.archive()).page("local", 100, search="y")
    await store.close()


async def test_a_locked_file_is_reported_and_works_again_later(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("myllm.sessions.connections.BUSY_S", 0.1)
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="locked by another program"):
            await store_one_turn(f"sqlite:///{database}")
        other.execute("ROLLBACK")
    await store_one_turn(f"sqlite:///{database}")


@pytest.mark.needs_root
async def test_a_full_disk_is_reported_and_loses_nothing(small_disk: Path) -> None:
    url = f"sqlite:///{small_disk / 'myllm.db'}"
    await store_one_turn(url)
    store = SessionStore(url)
    await store.start()
    await store.archive()
    (small_disk / "filler").write_bytes(b"x" * (shutil.disk_usage(small_disk).free - 200_000))
    async with store.open("local", "s", 1) as session:
        turn = session.merged([Message("user", "x" * 400_000)])
        with pytest.raises(StoreFailed, match="the disk is full; what was stored before is safe"):
            await store.save(session, "demo", turn, Message("assistant", "y"))
    async with store.open("local", "s", 1) as session:
        assert [message.content for message in session.messages] == ["hi", "hello"]
    (small_disk / "filler").unlink()
    async with store.open("local", "s", 1) as session:
        turn = session.merged([Message("user", "x" * 400_000)])
        await store.save(session, "demo", turn, Message("assistant", "y"))
    await store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


_STORE = """
import asyncio, os, sys
from myllm.errors import MyLLMError
from tests.sessions.test_schema import store_one_turn
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
try:
    asyncio.run(store_one_turn(f"sqlite:///{sys.argv[1]}"))
except MyLLMError as failure:
    print(failure.detail)
"""


def test_a_read_only_file_is_reported_and_left_alone() -> None:
    folder = Path(tempfile.mkdtemp(prefix="ml-"))
    folder.chmod(0o755)
    database = folder / "myllm.db"
    asyncio.run(store_one_turn(f"sqlite:///{database}"))
    database.chmod(0o444)
    before = database.read_bytes()
    # For a user who is not root, who may write everything.
    command = [sys.executable, "-c", _STORE, str(database)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "read-only; give the server's user the right to write it" in told
    assert database.read_bytes() == before
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:////a/b.db", Path("/a/b.db")),
        ("sqlite:///b.db", Path("b.db")),
        ("postgresql://u@h/d", None),
    ],
)
def test_a_url_names_a_file_or_a_server(url: str, path: Path | None) -> None:
    assert sqlite_path(url) == path


def test_another_url_is_refused() -> None:
    with pytest.raises(MyLLMError, match="must begin with sqlite:/// or postgresql://"):
        sqlite_path("mysql://x")


async def test_an_unreachable_server_is_reported() -> None:
    with pytest.raises(Unavailable, match=r"postgresql\+?\w*://u:\*\*\*@localhost:1/d cannot be"):
        await SessionStore("postgresql://u:secret@localhost:1/d").start()


POSTGRES_ONLY = pytest.param("postgres", marks=pytest.mark.needs_postgres)


@pytest.mark.parametrize("url", [POSTGRES_ONLY], indirect=True)
async def test_options_of_a_url_are_understood_or_refused(url: str) -> None:
    store = SessionStore(f"{url}&sslmode=disable")
    await store.start()
    await store.close()
    with pytest.raises(StoreFailed, match=r"MYLLM_DATABASE_URL cannot be used.*nonsense"):
        await SessionStore(f"{url}&nonsense=1").start()


@pytest.mark.parametrize("url", [POSTGRES_ONLY], indirect=True)
async def test_what_a_database_cannot_read_is_the_request_s_fault(url: str) -> None:
    store = SessionStore(url)
    await store.start()
    with pytest.raises(InvalidRequest, match=r"U\+0000"):
        await (await store.archive()).listed(SessionRef("local", "a\0"))
    await store.close()


_LATE = """
import asyncio, sys
import myllm.app
from myllm.sessions.store import SessionStore

async def main():
    store = SessionStore("sqlite:///" + sys.argv[1])
    print("loaded", *(name for name in ("sqlalchemy", "alembic") if name in sys.modules))
    await store.start()
    await store.archive()
    print("loaded", *(name for name in ("sqlalchemy", "alembic") if name in sys.modules))
    await store.close()

asyncio.run(main())
"""


async def test_slow_libraries_are_loaded_late_or_not_at_all(database: Path) -> None:
    """SQLAlchemy when a database is opened; Alembic neither then nor for a new one."""

    def loaded() -> list[str]:
        command = [sys.executable, "-c", _LATE, str(database)]
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        return [line for line in told.stdout.splitlines() if line.startswith("loaded")]

    assert loaded() == ["loaded", "loaded sqlalchemy"]
    database.unlink()
    assert loaded() == ["loaded", "loaded sqlalchemy"]
