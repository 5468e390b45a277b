"""LiteLLM as a client."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.conftest import EMBEDDING, TOOLED
from tests.clients.questions import ASKED, PARIS, TOO_LONG, TOOL
from tests.serving import Serving

pytestmark = pytest.mark.more


@pytest.fixture(scope="module")
def litellm() -> Any:
    """Import LiteLLM here, because that is slow; keep it from fetching prices from the network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        import litellm

        yield litellm


def where(server: Serving, model: str = "demo") -> dict[str, Any]:
    return {
        "model": f"openai/{model}",
        "api_base": f"{server.url}/v1",
        "api_key": "none",
        "max_retries": 0,
    }


def test_completions(server: Serving, litellm: Any) -> None:
    answer = litellm.completion(**where(server), messages=ASKED)
    assert answer.choices[0].message.content == PARIS
    assert answer.usage.completion_tokens == 10
    stream = litellm.completion(**where(server), messages=ASKED, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == PARIS


async def test_asynchronous_completions(server: Serving, litellm: Any) -> None:
    answer = await litellm.acompletion(**where(server), messages=ASKED)
    assert answer.choices[0].message.content == PARIS
    stream = await litellm.acompletion(**where(server), messages=ASKED, stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == PARIS


def test_tools_and_embeddings(server: Serving, litellm: Any) -> None:
    answer = litellm.completion(
        **where(server, TOOLED), messages=ASKED, tools=[TOOL], tool_choice="required"
    )
    [call] = answer.choices[0].message.tool_calls
    assert call.function.name == "weather"
    made = litellm.embedding(**where(server, EMBEDDING), input=["Hello"])
    assert len(made.data[0]["embedding"]) == 256


def test_errors(server: Serving, litellm: Any) -> None:
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**where(server, "gpt-3"), messages=ASKED)
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(**where(server), messages=TOO_LONG)
