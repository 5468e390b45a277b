"""Codex CLI, unmodified, in a network without internet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from myllm.engine.engine import Engine
from tests.clients.isolated import Network, isolated
from tests.clients.node_packages import installed
from tests.scripted import add_scripted_model
from tests.serving import Serving, serving, short_home

pytestmark = [
    pytest.mark.more,
    pytest.mark.needs_node,
    pytest.mark.needs_network_namespace,
    pytest.mark.timeout(600),
]

# As docs/clients.md says.
CONFIG = """\
model = "{model}"
model_provider = "myllm"
model_context_window = {context}
web_search = "disabled"

[model_providers.myllm]
name = "MyLLM"
base_url = "{url}/v1"
wire_api = "responses"
stream_idle_timeout_ms = 3600000
"""
ANSWER = "The file says forty-seven."
PATCHER = "gpt-5.5"
"""Codex gives `apply_patch`, a free-form tool, only to models that it knows."""
CODER = "gpt-6.1-sol"
"""To this one, Codex gives all tools in an item `additional_tools`, and lets it write scripts."""
SCRIPT = 'text(await tools.exec_command({cmd: "cat number.txt && touch seen"}))'
PATCH = '*** Begin Patch\n*** Add File: made.txt\n+forty-seven "\U0001f600"\n*** End Patch\n'


@dataclass(frozen=True)
class Codex:
    """The program, and the server that it is configured for."""

    network: Network
    server: Serving

    def run(self, folder: Path, model: str, context: int) -> tuple[list[dict[str, Any]], str]:
        """Let it work on a task in `folder`; returns its events, and what it printed besides."""
        (folder / ".codex").mkdir()
        config = CONFIG.format(url=self.server.url, model=model, context=context)
        (folder / ".codex" / "config.toml").write_text(config)
        project = folder / "project"
        project.mkdir()
        (project / "number.txt").write_text("47\n")
        program = installed("codex") / ".bin" / "codex"
        options = ["--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
        command = [program, "exec", *options, "What does number.txt say?"]
        done = self.network.run(command, home=folder, cwd=project, timeout_s=200)
        return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.fixture(scope="module")
def codex(engine: Engine) -> Iterator[Codex]:
    shell = "exec_command", {"cmd": "cat number.txt && touch seen"}
    with isolated() as network, short_home() as home:
        add_scripted_model(home / "models", "agent", *shell, ANSWER)
        patch = "apply_patch", {"input": PATCH}
        add_scripted_model(home / "models", "patcher", *patch, ANSWER, aliases=[PATCHER])
        code = "exec", {"input": SCRIPT}
        add_scripted_model(home / "models", "coder", *code, ANSWER, aliases=[CODER])
        add_scripted_model(home / "models", "small", *shell, ANSWER, context_size=4096)
        with serving(home, within=network.enter) as server:
            yield Codex(network, server)


def test_it_runs_a_command_and_reads_the_output(codex: Codex, tmp_path: Path) -> None:
    events, printed = codex.run(tmp_path, "agent", 65536)
    items = [event["item"] for event in events if event["type"] == "item.completed"]
    commands = [item for item in items if item["type"] == "command_execution"]
    assert [(each["aggregated_output"], each["exit_code"]) for each in commands] == [("47\n", 0)], (
        events,
        printed,
    )
    assert (tmp_path / "project" / "seen").exists()
    assert items[-1]["type"] == "agent_message"
    assert items[-1]["text"] == ANSWER
    assert events[-1]["type"] == "turn.completed"
    usage = events[-1]["usage"]
    assert usage["cached_input_tokens"] > usage["input_tokens"] / 3


def test_it_applies_a_patch(codex: Codex, tmp_path: Path) -> None:
    events, printed = codex.run(tmp_path, PATCHER, 65536)
    items = [event["item"] for event in events if event["type"] == "item.completed"]
    kinds = [item["type"] for item in items]
    assert kinds == ["file_change", "agent_message"], (events, printed)
    assert (tmp_path / "project" / "made.txt").read_text() == 'forty-seven "\U0001f600"\n'


def test_it_runs_a_script(codex: Codex, tmp_path: Path) -> None:
    events, printed = codex.run(tmp_path, CODER, 65536)
    assert (tmp_path / "project" / "seen").exists(), (events, printed)
    assert events[-1]["type"] == "turn.completed"
    said = [event["item"] for event in events if event["type"] == "item.completed"]
    assert said[-1]["text"] == ANSWER


def test_it_understands_that_the_context_is_too_small(codex: Codex, tmp_path: Path) -> None:
    events, printed = codex.run(tmp_path, "small", 65536)
    assert events[-1]["type"] == "turn.failed", (events, printed)
    assert "context window" in events[-1]["error"]["message"]
