"""Find out which schema a database has, and upgrade it; imports nothing heavy.

SQLAlchemy and Alembic together cost 0.3 to 0.5 s and 29 MB. So Python's own module looks at a
SQLite file, and Alembic is loaded only when the schema differs.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Final

from myllm.errors import StoreFailed

if TYPE_CHECKING:  # see above: loading SQLAlchemy takes a while
    from sqlalchemy.engine import Connection

REVISIONS: Final = ("0001", "0002", "0003")
"""The names of all migrations, in order; the last one is this program's schema."""

HEAD: Final = REVISIONS[-1]
_TABLE = "alembic_version"
_BUSY_S = 5.0


def check_known(revision: str | None, where: str) -> None:
    """Raise StoreFailed if a newer program has made the database."""
    if revision is not None and revision not in REVISIONS:
        raise StoreFailed(
            f"the store of conversations {where} was made by a newer MyLLM (its schema is "
            f"{revision}, this one knows {HEAD}); update MyLLM, or name another store in "
            "MYLLM_DATABASE_URL"
        )


def make_private(path: Path) -> None:
    """Make an empty file that only its owner may read, if there is none. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)


def sqlite_revision(path: Path) -> str | None:
    """Return the schema of a SQLite file, or None if it has none yet.

    Raises StoreFailed when the file is not a database, is damaged or cannot be read.
    """
    if not path.exists():
        return None
    try:
        with _opened(path) as connection:
            if not _has_table(connection, _TABLE):
                return None
            row = connection.execute(f"SELECT version_num FROM {_TABLE}").fetchone()
    except sqlite3.Error as failure:
        raise StoreFailed(_unusable(path, failure)) from failure
    return str(row[0]) if row else None


def sqlite_has_rows(path: Path, table: str) -> bool:
    """Whether a SQLite file has this table, and a row in it. Raises StoreFailed."""
    if not path.exists():
        return False
    try:
        with _opened(path) as connection:
            if not _has_table(connection, table):
                return False
            return connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is not None
    except sqlite3.Error as failure:
        raise StoreFailed(_unusable(path, failure)) from failure


def back_up_sqlite(path: Path, revision: str) -> Path:
    """Copy a SQLite file before its schema changes. The copy appears only once it is whole."""
    copy = path.with_name(f"{path.name}.before-{HEAD}-was-{revision}")
    aside = copy.with_name(f"{copy.name}.part")
    try:
        aside.unlink(missing_ok=True)
        with _opened(path) as connection:
            connection.execute("VACUUM INTO ?", (str(aside),))
        aside.chmod(0o600)
        os.replace(aside, copy)
    except (OSError, sqlite3.Error) as failure:
        aside.unlink(missing_ok=True)
        raise StoreFailed(
            f"{path} could not be copied to {copy} before its schema is changed: {failure}"
        ) from failure
    return copy


def create(connection: Connection) -> None:
    """Make the tables in an empty database; that needs no migrations, and so no Alembic."""
    from sqlalchemy import text  # loaded late, see above

    from myllm.sessions.tables import metadata

    metadata.create_all(connection, checkfirst=False)
    column = "version_num VARCHAR(32) NOT NULL"  # the same as Alembic's own
    connection.execute(text(f"CREATE TABLE {_TABLE} ({column}, PRIMARY KEY (version_num))"))
    connection.execute(text(f"INSERT INTO {_TABLE} VALUES (:head)"), {"head": HEAD})


def upgrade(connection: Connection) -> None:
    """Apply the migrations that are missing, within the connection's transaction."""
    import logging

    from alembic import command  # loaded late, see above
    from alembic.config import Config

    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


class _opened:
    """A connection that is closed at the end, which `with sqlite3.connect()` does not do."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)

    def __enter__(self) -> sqlite3.Connection:
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def _has_table(connection: sqlite3.Connection, name: str) -> bool:
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return connection.execute(query, (name,)).fetchone() is not None


def _unusable(path: Path, failure: sqlite3.Error) -> str:
    if "disk" in str(failure) and "malformed" not in str(failure):
        return f"the store of conversations {path} cannot be used: {failure}; is the disk full?"
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        return (
            f"the store of conversations {path} is read-only; give the server's user the right "
            "to write it and its folder"
        )
    return (
        f"the store of conversations {path} cannot be used: {failure}; move it away to begin a "
        "new one, or put a copy in its place"
    )
