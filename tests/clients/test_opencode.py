"""opencode, unmodified and non-interactively, with a provider in its configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import Isolated
from tests.clients.node_packages import project
from tests.clients.questions import FRANCE

pytestmark = [
    pytest.mark.more,
    pytest.mark.needs_node,
    pytest.mark.needs_network_namespace,
    pytest.mark.timeout(400),
]


def opencode(on: Isolated, folder: Path, question: str) -> list[dict[str, Any]]:
    """What happened when opencode was asked something."""
    command = folder / "node_modules/opencode-linux-x64-baseline/bin/opencode"
    done = on.network.run(
        [command, "run", "--format", "json", question],
        home=folder,
        MYLLM_URL=on.server.url,
        OPENCODE_DISABLE_AUTOUPDATE="1",
        OPENCODE_DISABLE_LSP_DOWNLOAD="1",
        OPENCODE_DISABLE_MODELS_FETCH="1",
        OPENCODE_DISABLE_DEFAULT_PLUGINS="1",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def parts(happened: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The parts of this type in all messages."""
    return [each["part"] for each in happened if each["type"] == kind]


def test_an_answer_with_all_instructions_and_tools(
    isolated_server: Isolated, tmp_path: Path
) -> None:
    happened = opencode(isolated_server, project("opencode", tmp_path), "Who are you?")
    [text] = parts(happened, "text")
    [end] = parts(happened, "step_finish")
    assert text["text"].startswith("I am the demo model of MyLLM")
    assert (end["reason"], end["tokens"]["output"]) == ("stop", 22)


def test_a_tool_is_called_and_its_result_read(isolated_server: Isolated, tmp_path: Path) -> None:
    """The model's arguments make no sense to the tool, whose complaint is the result."""
    folder = project("opencode", tmp_path)
    config = json.loads((folder / "opencode.json").read_text())
    config["tools"] = {"*": False, "glob": True}
    (folder / "opencode.json").write_text(json.dumps(config))
    happened = opencode(isolated_server, folder, FRANCE)
    [call] = parts(happened, "tool_use")
    assert call["tool"] == "glob"
    assert call["state"]["input"]["pattern"]
    first, second = parts(happened, "step_finish")
    assert (first["reason"], second["reason"]) == ("tool-calls", "stop")
    assert read(second) > read(first) > 0, "the call and its result"
    assert parts(happened, "text")[-1]["text"]


def read(step: dict[str, Any]) -> int:
    """The tokens of a step's prompt."""
    return int(step["tokens"]["input"] + step["tokens"]["cache"]["read"])
