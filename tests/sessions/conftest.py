"""The store on both of its databases."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from myllm.sessions.archive import Archive
from myllm.sessions.store import SessionStore
from tests.postgres import postgres_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.needs_postgres)])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store' / 'myllm.db'}"
    address = str(request.getfixturevalue("postgres"))
    engine = create_async_engine(address.replace("postgresql:", "postgresql+asyncpg:"))
    async with engine.begin() as connection:
        await connection.execute(text("DROP SCHEMA public CASCADE"))
        await connection.execute(text("CREATE SCHEMA public"))
    await engine.dispose()
    return address


@pytest.fixture
async def store(url: str) -> AsyncIterator[SessionStore]:
    """A store on an empty database."""
    made = SessionStore(url)
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def archive(store: SessionStore) -> Archive:
    return await store.archive()
