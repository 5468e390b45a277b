"""What Ollama's messages become: OpenAI's."""

from __future__ import annotations

from typing import Any

import pytest

from myllm.api.ollama.schemas import OllamaMessage
from myllm.api.ollama.translate import messages_of
from myllm.gateway.conversation.ignored import Ignored
from myllm.gateway.conversation.normalize import normalized


def call(name: str) -> dict[str, Any]:
    return {"id": f"id of {name}", "function": {"name": name, "arguments": {}}}


@pytest.mark.parametrize("role", ["tool", "function"])
@pytest.mark.parametrize("field", ["name", "tool_name", "tool_call_id", "Tool_Name"])
def test_a_result_belongs_to_the_call_that_it_names(role: str, field: str) -> None:
    """Also if the results come in another order than the calls."""
    calls = {"role": "assistant", "tool_calls": [call("time"), call("weather")]}
    prefix = "id of " if field == "tool_call_id" else ""
    results = [
        {"role": role, "content": said, field: prefix + name}
        for name, said in (("weather", "sunny"), ("time", "noon"))
    ]
    messages = [OllamaMessage.model_validate(each) for each in (calls, *results)]
    made = normalized(messages_of(messages), Ignored())[1:]
    assert [(each["tool_call_id"], each["name"], each["content"]) for each in made] == [
        ("id of weather", "weather", "sunny"),
        ("id of time", "time", "noon"),
    ]
