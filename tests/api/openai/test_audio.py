"""`/v1/audio/transcriptions`, also with OpenAI's own client, by models that take audio."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from myllm.engine.engine import Engine
from tests.ggufs import write_model
from tests.projectors import b64, png, wav, write_projector
from tests.serving import Serving, serving, short_home

PATH = "/v1/audio/transcriptions"
LOW, HIGH = wav(300), wav(3000)


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as path:
        for name in ("eye", "ear"):
            write_model(path / "models" / name / f"{name}.gguf")
            hears = name == "ear"
            write_projector(path / "models" / name / "mmproj.gguf", sees=not hears, hears=hears)
        (path / "models/ear/config.json").write_text('{"parameters": {"max_tokens": 12}}')
        with serving(path, threads=1, max_body_mb=1) as running:
            yield running


def ask(api: httpx.Client, recording: bytes = LOW, **fields: Any) -> httpx.Response:
    data = {"model": "ear"} | fields
    return api.post(PATH, data=data, files={"file": ("a.wav", recording, "audio/wav")})


def refusal(answer: httpx.Response, status: int = 400) -> str:
    assert answer.status_code == status, answer.text
    return str(answer.json()["error"]["message"])


def test_the_answer_equals_that_of_a_chat(api: httpx.Client) -> None:
    answer = ask(api).json()
    parts = [
        {"type": "text", "text": "Transcribe audio to text"},
        {"type": "input_audio", "input_audio": {"data": b64(LOW), "format": "wav"}},
    ]
    messages = [{"role": "user", "content": parts}]
    body = {"model": "ear", "messages": messages, "temperature": 0}
    chat = api.post("/v1/chat/completions", json=body).json()
    assert answer["text"] == chat["choices"][0]["message"]["content"]
    assert answer["usage"] == {
        "type": "tokens",
        "input_tokens": chat["usage"]["prompt_tokens"],
        "output_tokens": 12,
        "total_tokens": chat["usage"]["prompt_tokens"] + 12,
    }
    assert ask(api, HIGH).json()["text"] != answer["text"]


def test_prompt_and_language_reach_the_model(api: httpx.Client) -> None:
    used = [
        ask(api, **fields).json()["usage"]["input_tokens"]
        for fields in ({}, {"language": "en"}, {"prompt": "Write"})
    ]

    def tokens(text: str) -> int:
        """One for each byte, once the tokenizer has written spaces in its own way."""
        return len(text.replace(" ", "▁").encode())

    assert used[1] == used[0] + tokens(" (language: en)")
    assert used[2] == used[0] + tokens("Write") - tokens("Transcribe audio to text")


def test_as_text_and_as_a_stream(server: Serving, api: httpx.Client) -> None:
    said = ask(api).json()["text"]
    text = ask(api, response_format="text")
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    assert text.text == f"{said}\n"
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    *deltas, done = client.audio.transcriptions.create(model="ear", file=("a", LOW), stream=True)
    assert "".join(each.delta for each in deltas if each.type.endswith("delta")) == said
    assert done.type == "transcript.text.done"
    assert done.text == said


def test_a_verbose_answer_has_what_is_known(server: Serving, api: httpx.Client) -> None:
    said = ask(api).json()
    known = {"task": "transcribe", "duration": 0.4, "language": "en"}
    told = ask(api, response_format="verbose_json", language="en").json()
    [segment] = told.pop("segments")
    assert segment == {"id": 0, "start": 0.0, "end": 0.4, "text": told["text"]}
    assert {name: told[name] for name in known} == known
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    made = client.audio.transcriptions.create(
        model="ear", file=("a.wav", LOW), response_format="verbose_json",
        timestamp_granularities=["segment"],
    )  # fmt: skip
    assert made.text == said["text"]
    assert made.segments is not None
    assert [each.text for each in made.segments] == [said["text"]]
    with pytest.raises(openai.BadRequestError, match="timestamp_granularities"):
        client.audio.transcriptions.create(
            model="ear", file=("a.wav", LOW), response_format="verbose_json",
            timestamp_granularities=["word"],
        )  # fmt: skip


def test_openais_client(server: Serving, api: httpx.Client) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    made = client.audio.transcriptions.create(model="ear", file=("a.wav", LOW), temperature=0)
    assert made.text == ask(api).json()["text"]
    assert made.usage is not None
    with pytest.raises(openai.BadRequestError, match="cannot hear audio"):
        client.audio.transcriptions.create(model="demo", file=("a.wav", LOW))
    with pytest.raises(openai.NotFoundError):
        client.audio.transcriptions.create(model="none", file=("a.wav", LOW))


def test_errors_say_what_is_wrong(api: httpx.Client) -> None:
    assert refusal(ask(api, model="eye")) == (
        "Model 'eye' cannot hear audio: its projector (mmproj.gguf) has no audio encoder"
    )
    assert refusal(ask(api, b"")) == "file must not be empty"
    assert "The engine refused the request" in refusal(ask(api, b"no recording"))
    assert "response_format must be one of" in refusal(ask(api, response_format="srt"))
    assert "temperature" in refusal(ask(api, temperature="hot"))
    told = refusal(api.post(PATH, data={"model": "ear"}))
    assert told == "Content-Type must be multipart/form-data, with a file"
    told = refusal(api.post(PATH, json={"model": "ear"}))
    assert told == "Content-Type must be multipart/form-data, with a file"
    assert refusal(api.post(PATH, files={"file": LOW})) == "model is required"
    broken = {"content-type": "multipart/form-data"}
    assert refusal(api.post(PATH, content=b"x", headers=broken))


def test_a_picture_is_not_heard(api: httpx.Client) -> None:
    assert ask(api, png(255, 0, 0)).status_code == 400
    assert ask(api).status_code == 200


def test_the_bound_on_bodies_holds(api: httpx.Client) -> None:
    assert "larger than 1 MiB" in refusal(ask(api, bytes(2**20)), 413)
