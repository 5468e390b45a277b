"""A server whose models have the names of OpenAI's, because some clients accept no others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from myllm.engine.engine import Engine
from myllm.models.registry import BUILTIN_DIR
from tests.serving import Serving, serving, short_home
from tests.tooled import TOOLS, add_model

CHAT, EMBEDDING, TOOLED = "gpt-4o-mini", "text-embedding-3-small", "gpt-4o"
"""Names of the demo model: two as it is, and one with a template for tools."""


def add_demo(models_dir: Path, *aliases: str) -> None:
    """Copy the demo model into `models_dir`, with these aliases."""
    folder = shutil.copytree(BUILTIN_DIR / "demo", models_dir / "demo")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"aliases": aliases}))


@pytest.fixture(scope="package")
def server(engine: Engine) -> Iterator[Serving]:
    """One server for the tests of all clients."""
    with short_home() as home:
        add_demo(home / "models", CHAT, EMBEDDING)
        add_model(home / "models", "tools", TOOLS, aliases=[TOOLED])
        with serving(home) as running:
            yield running
