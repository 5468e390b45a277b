"""OpenAI's Agents SDK, unmodified: it talks to the Responses API."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from agents import (
    Agent,
    ModelSettings,
    OpenAIResponsesModel,
    Runner,
    SQLiteSession,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

from tests.clients.conftest import CHAT, TOOLED
from tests.clients.questions import FRANCE, PARIS
from tests.serving import Serving

pytestmark = pytest.mark.more

# A result of a tool to which the demo model has an answer that ends.
WHO = "Who are you?"
DEMO = "I am a tiny demo model and only know about MyLLM."


@pytest.fixture(autouse=True)
def no_tracing() -> None:
    """Traces would be sent to OpenAI."""
    set_tracing_disabled(True)


@pytest.fixture
def client(server: Serving) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def model(client: AsyncOpenAI, name: str) -> dict[str, Any]:
    settings = ModelSettings(temperature=0)
    return {"model": OpenAIResponsesModel(name, client), "model_settings": settings}


async def test_an_answer_whole_and_streamed(client: AsyncOpenAI) -> None:
    agent = Agent(name="guide", **model(client, CHAT))
    whole = await Runner.run(agent, FRANCE)
    assert whole.final_output == PARIS
    streamed = Runner.run_streamed(agent, FRANCE)
    kinds = {event.type async for event in streamed.stream_events()}
    assert streamed.final_output == PARIS
    assert "raw_response_event" in kinds


async def test_a_conversation(client: AsyncOpenAI) -> None:
    agent = Agent(name="guide", **model(client, CHAT))
    first = await Runner.run(agent, "My name is Marlo.")
    history = [*first.to_input_list(), {"role": "user", "content": "What is my name?"}]
    assert (await Runner.run(agent, history)).final_output == "Your name is Marlo."
    ours = await Runner.run(agent, "What is my name?", previous_response_id=first.last_response_id)
    assert ours.final_output == "Your name is Marlo."
    session = SQLiteSession("one")
    await Runner.run(agent, "My name is Quentin.", session=session)
    kept = await Runner.run(agent, "What is my name?", session=session)
    assert kept.final_output == "Your name is Quentin."


@pytest.mark.parametrize("streams", [False, True])
async def test_a_tool_loop(client: AsyncOpenAI, streams: bool) -> None:
    called: list[str] = []

    @function_tool
    def weather(city: Literal["Paris"]) -> str:
        """Tell the weather of a city."""
        called.append(city)
        return WHO

    agent = Agent(name="guide", tools=[weather], **model(client, TOOLED))
    if streams:
        result: Any = Runner.run_streamed(agent, FRANCE, max_turns=3)
        async for _ in result.stream_events():
            pass
    else:
        result = await Runner.run(agent, FRANCE, max_turns=3)
    kinds = [item.type for item in result.new_items]
    assert called == ["Paris"]
    assert result.final_output.startswith(DEMO)
    assert kinds[-3:] == ["tool_call_item", "tool_call_output_item", "message_output_item"]
