"""Next to its own API, Ollama has OpenAI's and Anthropic's, and so has this server at `/ollama`."""

from __future__ import annotations

from collections.abc import Iterator

import anthropic
import httpx
import openai
import pytest

from tests.api.credentials import ANN
from tests.serving import Serving

FRANCE = "What is the capital of France?"
PARIS = "The capital of France is Paris."


@pytest.fixture
def client(server: Serving) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/ollama/v1", api_key="ollama") as made:
        yield made


def test_openais_client(client: openai.OpenAI) -> None:
    asked: list[openai.types.chat.ChatCompletionMessageParam]
    asked = [{"role": "user", "content": FRANCE}]
    whole = client.chat.completions.create(model="demo:latest", messages=asked)
    assert whole.choices[0].message.content == PARIS
    pieces = client.chat.completions.create(model="demo", messages=asked, stream=True)
    assert "".join(each.choices[0].delta.content or "" for each in pieces) == PARIS
    assert client.completions.create(model="demo", prompt="Once", max_tokens=4).choices[0].text
    assert client.responses.create(model="demo", input=FRANCE, store=False).output_text == PARIS
    assert client.embeddings.create(model="demo", input="cat").data[0].embedding
    assert "demo" in {each.id for each in client.models.list()}
    assert client.models.retrieve("demo").id == "demo"


def test_errors_have_openais_form(client: openai.OpenAI, api: httpx.Client) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="nope", messages=[{"role": "user", "content": "Hi"}])
    assert missing.value.code == "model_not_found"
    for path in ("/ollama/v1/nowhere", "/ollama/v1/chat/completions"):
        error = api.get(path).json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
    assert api.get("/ollama/v1").json() == {"error": "No such route: GET /ollama/v1; see /docs"}


def test_anthropics_client(server: Serving) -> None:
    with anthropic.Anthropic(base_url=f"{server.url}/ollama", api_key="ollama") as client:
        answer = client.messages.create(
            model="demo", max_tokens=64, messages=[{"role": "user", "content": FRANCE}]
        )
    [block] = answer.content
    assert block.type == "text"
    assert block.text == PARIS


def test_keys_are_asked_for_all_the_same(locked: Serving) -> None:
    for key, status in ((ANN, 200), ("wrong", 401)):
        with locked.client() as api:
            headers = {"Authorization": f"Bearer {key}"}
            assert api.get("/ollama/v1/models", headers=headers).status_code == status
