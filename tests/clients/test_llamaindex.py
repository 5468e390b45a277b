"""LlamaIndex's class for OpenAI, which accepts only the names of OpenAI's models."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.conftest import CHAT
from tests.clients.questions import FRANCE, PARIS
from tests.serving import Serving

pytestmark = pytest.mark.more


@pytest.fixture(scope="module")
def model(server: Serving) -> Any:
    """Import LlamaIndex here, because that is slow."""
    from llama_index.llms.openai import OpenAI

    return OpenAI(model=CHAT, api_base=f"{server.url}/v1", api_key="none", max_retries=0)


def asked() -> Any:
    from llama_index.core.llms import ChatMessage

    return [ChatMessage(role="user", content=FRANCE)]


def test_chats(model: Any) -> None:
    assert model.chat(asked()).message.content == PARIS
    pieces = list(model.stream_chat(asked()))
    assert "".join(piece.delta for piece in pieces) == PARIS
    assert pieces[-1].message.content == PARIS


def test_completions(model: Any) -> None:
    assert model.complete(FRANCE).text == PARIS
    assert [piece.text for piece in model.stream_complete(FRANCE)][-1] == PARIS


async def test_asynchronous_chats(model: Any) -> None:
    assert (await model.achat(asked())).message.content == PARIS
    stream = await model.astream_chat(asked())
    assert "".join([piece.delta async for piece in stream]) == PARIS
