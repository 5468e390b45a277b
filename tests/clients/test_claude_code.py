"""Claude Code, unmodified and non-interactively."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import Isolated
from tests.clients.node_packages import installed
from tests.clients.questions import FRANCE

pytestmark = [
    pytest.mark.more,
    pytest.mark.needs_node,
    pytest.mark.needs_network_namespace,
    pytest.mark.timeout(400),
]


def claude(on: Isolated, folder: Path, model: str, *arguments: str) -> list[dict[str, Any]]:
    """What happened when Claude Code was asked something; the last entry is the result."""
    command = [installed("claude-code") / ".bin" / "claude", "--print", *arguments]
    output = ("--output-format", "stream-json", "--verbose")
    done = on.network.run(
        [*command, *output],
        home=folder,
        ANTHROPIC_BASE_URL=on.server.url,
        ANTHROPIC_AUTH_TOKEN="none",
        ANTHROPIC_MODEL=model,
        ANTHROPIC_DEFAULT_HAIKU_MODEL=model,
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
    )
    lines = done.stdout.splitlines()
    assert lines, done.stderr
    return [json.loads(line) for line in lines]


def blocks(happened: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The blocks of this type in all messages."""
    messages = [each["message"] for each in happened if "message" in each]
    contents = [each["content"] for each in messages if isinstance(each["content"], list)]
    return [block for content in contents for block in content if block["type"] == kind]


def test_an_answer_with_all_instructions_and_tools(
    isolated_server: Isolated, tmp_path: Path
) -> None:
    *_, result = claude(isolated_server, tmp_path, "agent", "Who are you?")
    assert result["subtype"] == "success"
    assert not result["is_error"]
    assert result["result"].startswith("I am the demo model of MyLLM")
    assert result["usage"]["output_tokens"] == 22


def test_a_tool_is_called_and_its_result_read(isolated_server: Isolated, tmp_path: Path) -> None:
    happened = claude(isolated_server, tmp_path, "agent", FRANCE, "--tools", "TaskList")
    result = happened[-1]
    [call] = blocks(happened, "tool_use")
    [answer] = blocks(happened, "tool_result")
    assert (call["name"], call["input"]) == ("TaskList", {})
    assert answer["tool_use_id"] == call["id"]
    assert (result["subtype"], result["num_turns"]) == ("success", 2)
    assert result["result"]
    usage = result["usage"]
    assert usage["cache_read_input_tokens"] > 0


def test_a_prompt_that_is_too_long_is_recognized(isolated_server: Isolated, tmp_path: Path) -> None:
    """By this error Claude Code knows that it has to compact the conversation, and by how much."""
    *_, result = claude(isolated_server, tmp_path, "demo", "Who are you?", "--tools", "")
    assert result["is_error"]
    assert result["api_error_status"] == 400
    assert re.match(r"Prompt is too long .* ~\d{4} tokens \(limit 2048\)", result["result"])
    assert result["terminal_reason"] == "prompt_too_long"
