"""A quick look into the store, for the shell's completion: without SQLAlchemy, which takes half a
second to import."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

_SQLITE: Final = "sqlite:///"
_PATIENCE_S: Final = 0.1
_LATEST: Final = """
    SELECT id, title FROM sessions WHERE owner = ? AND substr(id, 1, ?) = ?
    ORDER BY updated DESC LIMIT ?
"""


def latest_ids(url: str, owner: str, beginning: str, most: int) -> list[tuple[str, str]]:
    """Ids and titles of the owner's sessions whose ids begin so, the last used first.

    Nothing is written. A store that is not SQLite has none here. Raises sqlite3.Error.
    """
    if not url.startswith(_SQLITE):
        return []
    address = Path(url.removeprefix(_SQLITE)).absolute().as_uri() + "?mode=ro"
    with closing(sqlite3.connect(address, timeout=_PATIENCE_S, uri=True)) as connection:
        asked = (owner, len(beginning), beginning, most)
        return connection.execute(_LATEST, asked).fetchall()
