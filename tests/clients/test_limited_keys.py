"""The libraries of OpenAI, Anthropic, Ollama and LangChain, with keys that have limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import ollama
import openai
import pytest
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from myllm.engine.engine import Engine
from myllm.sessions.keys import KeyRules, KeyStore, hash_of
from tests.clients.conftest import CHAT, CLAUDE, add_demo
from tests.clients.questions import ASKED, FRANCE, PARIS
from tests.keys import change_keys
from tests.serving import Serving, serving, short_home

pytestmark = pytest.mark.more

LIBRARIES = ("openai", "anthropic", "ollama", "langchain")
RULES: dict[str, dict[str, Any]] = {
    "scope": {"models": (CHAT, "claude-*")},
    "requests": {"requests_per_minute": 2},
    "retries": {"requests_per_minute": 1},
    "tokens": {"tokens_per_minute": 300},
}


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    """It has one key of each kind for each library, and two models: one in scope, and `secret`."""
    with short_home() as home:
        add_demo(home / "models", CHAT, CLAUDE)
        (home / "models" / "demo").rename(home / "models" / "mine")
        add_demo(home / "models", "hidden")
        (home / "models" / "demo").rename(home / "models" / "secret")

        async def store(keys: KeyStore) -> None:
            for kind, rules in RULES.items():
                for library in LIBRARIES:
                    secret = hash_of(f"{kind}-{library}-key")
                    await keys.add_hashed(f"{kind}-{library}", secret, KeyRules(**rules))

        change_keys(home, store)
        with serving(home) as running:
            yield running


def openai_with(server: Serving, key: str, retries: int = 0) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=retries)


def anthropic_with(server: Serving, key: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key=key, max_retries=0)


def ollama_with(server: Serving, key: str) -> ollama.Client:
    return ollama.Client(f"{server.url}/ollama", headers={"Authorization": f"Bearer {key}"})


def langchain_with(server: Serving, key: str, model: str) -> ChatOpenAI:
    return ChatOpenAI(
        model=model, base_url=f"{server.url}/v1", api_key=SecretStr(key), max_retries=0
    )


class TestOpenAI:
    def test_a_scope(self, server: Serving) -> None:
        with openai_with(server, "scope-openai-key") as client:
            assert {each.id for each in client.models.list()} == {"mine", CHAT, CLAUDE}
            answer = client.chat.completions.create(model=CHAT, messages=ASKED)
            assert answer.choices[0].message.content == PARIS
            for name in ("secret", "hidden"):
                with pytest.raises(openai.NotFoundError) as missing:
                    client.chat.completions.create(model=name, messages=ASKED)
                assert missing.value.code == "model_not_found"
                assert "Available models: mine" in missing.value.message

    def test_requests_per_minute(self, server: Serving) -> None:
        with openai_with(server, "requests-openai-key") as client:
            for left in ("1", "0"):
                raw = client.chat.completions.with_raw_response.create(model=CHAT, messages=ASKED)
                assert raw.headers["x-ratelimit-limit-requests"] == "2"
                assert raw.headers["x-ratelimit-remaining-requests"] == left
                assert raw.parse().choices[0].message.content == PARIS
            for stream in (False, True):
                with pytest.raises(openai.RateLimitError) as refused:
                    client.chat.completions.create(model=CHAT, messages=ASKED, stream=stream)
                assert refused.value.code == "rate_limit_exceeded"
                assert refused.value.type == "rate_limit_error"
                assert 1 <= int(refused.value.response.headers["retry-after"]) <= 60
            with pytest.raises(openai.RateLimitError):
                client.embeddings.create(model="mine", input="Hi")
            with pytest.raises(openai.RateLimitError):
                client.responses.create(model=CHAT, input=FRANCE)
            assert [each.id for each in client.models.list()]  # which does not count

    def test_tokens_per_minute(self, server: Serving) -> None:
        with openai_with(server, "tokens-openai-key") as client:
            asked: Any = {"model": CHAT, "messages": ASKED, "stream": True, "max_tokens": 200}
            with client.chat.completions.with_streaming_response.create(**asked) as stream:
                assert int(stream.headers["x-ratelimit-remaining-tokens"]) < 100
                for _ in stream.iter_bytes():
                    pass
            with pytest.raises(openai.RateLimitError, match="tokens per minute"):
                client.chat.completions.create(model=CHAT, messages=ASKED, max_tokens=285)
            with pytest.raises(openai.BadRequestError, match="lower max_tokens"):
                client.chat.completions.create(model=CHAT, messages=ASKED, max_tokens=301)
            answer = client.chat.completions.create(model=CHAT, messages=ASKED, max_tokens=100)
            assert answer.choices[0].message.content == PARIS

    def test_it_waits_as_long_as_it_is_told(
        self, server: Serving, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waits: list[float] = []
        monkeypatch.setattr("time.sleep", waits.append)
        with openai_with(server, "retries-openai-key", retries=1) as client:
            client.chat.completions.create(model=CHAT, messages=ASKED)
            with pytest.raises(openai.RateLimitError) as refused:
                client.chat.completions.create(model=CHAT, messages=ASKED)
        told = int(refused.value.response.headers["retry-after"])
        assert waits == [pytest.approx(told, abs=2)]


class TestAnthropic:
    def test_a_scope(self, server: Serving) -> None:
        with anthropic_with(server, "scope-anthropic-key") as client:
            answer = client.messages.create(model=CLAUDE, messages=ASKED, max_tokens=50)
            assert answer.content[0].type == "text"
            assert answer.content[0].text == PARIS
            with pytest.raises(anthropic.NotFoundError, match="Available models: mine"):
                client.messages.create(model="secret", messages=ASKED, max_tokens=50)

    def test_requests_per_minute(self, server: Serving) -> None:
        with anthropic_with(server, "requests-anthropic-key") as client:
            asked: Any = {"model": CLAUDE, "messages": ASKED, "max_tokens": 50}
            raw = client.messages.with_raw_response.create(**asked)
            assert raw.headers["anthropic-ratelimit-requests-limit"] == "2"
            assert raw.headers["anthropic-ratelimit-requests-remaining"] == "1"
            assert raw.headers["anthropic-ratelimit-requests-reset"].endswith("Z")
            with client.messages.stream(**asked) as stream:
                assert stream.get_final_text() == PARIS
            with pytest.raises(anthropic.RateLimitError) as refused:
                client.messages.create(**asked)
            assert refused.value.body["error"]["type"] == "rate_limit_error"  # type: ignore[index]
            assert refused.value.response.headers["retry-after"]
            with pytest.raises(anthropic.RateLimitError), client.messages.stream(**asked) as stream:
                stream.get_final_text()
            with pytest.raises(anthropic.RateLimitError):
                client.messages.count_tokens(model=CLAUDE, messages=ASKED)

    def test_tokens_per_minute(self, server: Serving) -> None:
        with anthropic_with(server, "tokens-anthropic-key") as client:
            asked: Any = {"model": CLAUDE, "messages": ASKED}
            client.messages.create(**asked, max_tokens=50)
            with pytest.raises(anthropic.RateLimitError, match="tokens per minute"):
                client.messages.create(**asked, max_tokens=285)
            with pytest.raises(anthropic.BadRequestError, match="lower max_tokens"):
                client.messages.create(**asked, max_tokens=300)
            client.messages.create(**asked, max_tokens=50)


class TestOllama:
    def test_a_scope(self, server: Serving) -> None:
        client = ollama_with(server, "scope-ollama-key")
        listed = {f"{name}:latest" for name in ("mine", CHAT, CLAUDE)}
        assert {each.model for each in client.list().models} == listed
        assert client.chat(CHAT, ASKED).message.content == PARIS
        assert {each.model for each in client.ps().models} == {"mine:latest"}
        for ask in (lambda: client.chat("secret", ASKED), lambda: client.show("hidden")):
            with pytest.raises(ollama.ResponseError, match="not found") as missing:
                ask()
            assert missing.value.status_code == 404

    def test_requests_per_minute(self, server: Serving) -> None:
        client = ollama_with(server, "requests-ollama-key")
        assert client.chat(CHAT, ASKED).message.content == PARIS
        client.embed("mine", "Hi")
        with pytest.raises(ollama.ResponseError, match="requests per minute") as refused:
            client.chat(CHAT, ASKED)
        assert refused.value.status_code == 429
        with pytest.raises(ollama.ResponseError) as refused:
            list(client.generate(CHAT, "Hi", stream=True))
        assert refused.value.status_code == 429
        assert client.list().models

    def test_tokens_per_minute(self, server: Serving) -> None:
        client = ollama_with(server, "tokens-ollama-key")
        client.chat(CHAT, ASKED, options={"num_predict": 50})
        with pytest.raises(ollama.ResponseError, match="tokens per minute") as refused:
            client.chat(CHAT, ASKED, options={"num_predict": 285})
        assert refused.value.status_code == 429
        client.chat(CHAT, ASKED)


class TestLangChain:
    def test_a_scope(self, server: Serving) -> None:
        key = "scope-langchain-key"
        assert langchain_with(server, key, CHAT).invoke(FRANCE).content == PARIS
        with pytest.raises(openai.NotFoundError):
            langchain_with(server, key, "secret").invoke(FRANCE)

    def test_requests_per_minute(self, server: Serving) -> None:
        model = langchain_with(server, "requests-langchain-key", CHAT)
        for _ in range(2):
            assert "".join(str(piece.content) for piece in model.stream(FRANCE)) == PARIS
        with pytest.raises(openai.RateLimitError):
            model.invoke(FRANCE)


def test_our_own_api(server: Serving) -> None:
    """A program without a library, as the documentation shows it."""
    url, headers = f"{server.url}/api/chat", {"X-Api-Key": "tokens-langchain-key"}
    asked: dict[str, Any] = {"model": "mine", "messages": ASKED, "stream": False}
    refused = httpx.post(url, json=asked, headers=headers)
    assert "lower max_tokens" in refused.json()["detail"]  # its default is 512
    asked |= {"options": {"max_tokens": 100}}
    answer = httpx.post(url, json=asked, headers=headers)
    assert answer.json()["message"]["content"] == PARIS
    assert answer.headers["x-ratelimit-limit-tokens"] == "300"
