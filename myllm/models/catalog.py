"""The models that can be pulled by a short name; the list itself is `catalog.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class CatalogEntry:
    """One known model: where to download it, and what a pull writes into its `config.json`.

    `size_mb` is approximate, in units of 10^6 bytes. `template` is set if the GGUF has none.
    """

    name: str
    repo: str
    file: str
    family: str
    size_mb: int
    description: str
    template: str | None = None


@cache
def catalog() -> dict[str, CatalogEntry]:
    """All entries by name, in the order of the file."""
    text = (files("myllm.models") / "catalog.toml").read_text("utf-8")
    return {name: CatalogEntry(name, **fields) for name, fields in tomllib.loads(text).items()}
