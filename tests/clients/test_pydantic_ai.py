"""pydantic-ai, unmodified: a loop with a tool, whole and streamed, and answers in two forms."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel

from tests.clients.conftest import CHAT, TOOLED
from tests.clients.questions import FRANCE, PARIS
from tests.serving import Serving

pytestmark = pytest.mark.more


class City(BaseModel):
    """What the models are to answer with."""

    city: Literal["Paris"]


def model(server: Serving, name: str, kind: str = "OpenAIChatModel") -> Any:
    from pydantic_ai.models import openai
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=f"{server.url}/v1", api_key="none")
    return getattr(openai, kind)(name, provider=provider)


def test_an_answer_whole_and_streamed(server: Serving) -> None:
    from pydantic_ai import Agent

    agent = Agent(model(server, CHAT), instructions="Be brief.")
    whole = agent.run_sync(FRANCE)
    assert whole.output == PARIS
    assert whole.usage.output_tokens == 10
    streamed = agent.run_stream_sync(FRANCE)
    assert "".join(streamed.stream_text(delta=True)) == PARIS


@pytest.mark.parametrize("kind", ["OpenAIChatModel", "OpenAIResponsesModel"])
def test_a_loop_of_two_steps(server: Serving, kind: str) -> None:
    """The agent calls its tool and sends the result; then the model answers."""
    from pydantic_ai import Agent
    from pydantic_ai.messages import ModelRequest, ToolCallPart, ToolReturnPart

    agent = Agent(model(server, TOOLED, kind))
    asked: list[str] = []

    @agent.tool_plain
    def weather(city: Literal["Paris"]) -> dict[str, Any]:
        """Of a city."""
        asked.append(city)
        return {"city": city, "degrees": 21}

    result = agent.run_sync(FRANCE, model_settings={"max_tokens": 200})
    assert asked
    assert set(asked) == {"Paris"}
    parts = [part for message in result.all_messages() for part in message.parts]
    [call, *_] = [part for part in parts if isinstance(part, ToolCallPart)]
    [returned, *_] = [part for part in parts if isinstance(part, ToolReturnPart)]
    assert returned.tool_call_id == call.tool_call_id
    assert sum(isinstance(each, ModelRequest) for each in result.all_messages()) >= 2
    assert result.usage.requests == len(asked) + 1


def test_answers_by_a_schema_and_by_a_tool(server: Serving) -> None:
    from pydantic_ai import Agent, NativeOutput, ToolOutput

    native = Agent(model(server, CHAT), output_type=NativeOutput(City))
    assert native.run_sync(FRANCE).output == City(city="Paris")
    by_tool = Agent(
        model(server, TOOLED),
        output_type=ToolOutput(City, name="weather"),
        model_settings={"parallel_tool_calls": False},
    )
    assert by_tool.run_sync(FRANCE).output == City(city="Paris")
