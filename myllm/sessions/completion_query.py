"""A quick query of the store for the shell's completion.

It does without SQLAlchemy, which takes half a second to import.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

_SQLITE: Final = "sqlite:///"
_BUSY_S: Final = 0.1
_LATEST: Final = """
    SELECT id, title FROM sessions WHERE owner = ? AND substr(id, 1, ?) = ?
    ORDER BY updated DESC LIMIT ?
"""


def latest_ids(url: str, owner: str, beginning: str, limit: int) -> list[tuple[str, str]]:
    """Return ids and titles of the owner's sessions, the last used first.

    Their ids begin with `beginning`, and there are at most `limit`. The store is opened read-only;
    for a store that is not SQLite the list is empty. Raises sqlite3.Error.
    """
    if not url.startswith(_SQLITE):
        return []
    address = Path(url.removeprefix(_SQLITE)).absolute().as_uri() + "?mode=ro"
    with closing(sqlite3.connect(address, timeout=_BUSY_S, uri=True)) as connection:
        values = (owner, len(beginning), beginning, limit)
        return connection.execute(_LATEST, values).fetchall()
