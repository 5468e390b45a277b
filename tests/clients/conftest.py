"""Servers for the clients: one for libraries, and one for programs, which run without internet."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from myllm.engine.engine import Engine
from myllm.models.registry import BUILTIN_DIR
from tests.clients.isolated import Network, isolated
from tests.clients.node_packages import project
from tests.real_models import SMOLLM2, link_real_model
from tests.serving import Serving, serving, short_home
from tests.tooled import AGENT, THOUGHTS, TOOLS, add_model

CHAT, EMBEDDING, TOOLED = "gpt-4o-mini", "text-embedding-3-small", "gpt-4o"
"""Names of the demo model: two as it is, and one with a template for tools. They are OpenAI's,
because some clients accept no others."""
CLAUDE = "claude-sonnet-4-6"
"""A name of Anthropic's, of which clients know what its models can do."""


@dataclass(frozen=True)
class Isolated:
    """A server in a network that has only loopback; the programs that use it run there, too."""

    network: Network
    server: Serving

    def results_of(self, name: str, folder: Path, *arguments: str) -> Any:
        """Run `client.mjs` of the npm project `name`, copied into `folder`; return what it prints,
        which is JSON."""
        done = self.network.run(
            ["node", "client.mjs", *arguments],
            home=project(name, folder),
            MYLLM_URL=self.server.url,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)


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


@pytest.fixture(scope="package")
def isolated_server(engine: Engine) -> Iterator[Isolated]:
    """One server for all programs, with SmolLM2 and demo models that call tools or think.

    Those that call tools have room for an agent's instructions.
    """
    with isolated() as network, short_home() as home:
        add_model(home / "models", "tools", TOOLS, aliases=[TOOLED], context_size=32768)
        add_model(home / "models", "agent", AGENT, aliases=[CLAUDE])
        add_model(home / "models", "thoughts", THOUGHTS)
        link_real_model(home / "models", SMOLLM2)
        with serving(home, within=network.enter) as server:
            yield Isolated(network, server)
