"""The prompts that llama-server's clients send: lists, objects, and fields that are null."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.api.events import post
from tests.ggufs import write_model
from tests.projectors import png, write_projector
from tests.serving import Serving, serving, short_home
from tests.tooled import TOOLS, add_model

COLD: dict[str, Any] = {"temperature": 0, "n_predict": 4}
STORY = "Once upon a time"
CONTEXT = 2048


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as home:
        write_model(home / "models/eye/eye.gguf")
        write_projector(home / "models/eye/mmproj-eye.gguf")
        add_model(home / "models", "short", TOOLS, parameters={"max_tokens": 3})
        with serving(home) as running:
            yield running


def complete(api: httpx.Client, prompt: Any, **more: Any) -> Any:
    return post(api, "/completion", **{"model": "demo", "prompt": prompt} | COLD | more)


def events(api: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    with api.stream("POST", "/completion", json=COLD | body | {"stream": True}) as answer:
        assert answer.status_code == 200, answer.read()
        lines = [line for line in answer.iter_lines() if line.startswith("data: ")]
    return [json.loads(line[len("data: ") :]) for line in lines]


def test_a_list_of_prompts_is_answered_by_a_list(api: httpx.Client) -> None:
    tokens = post(api, "/tokenize", model="demo", content=STORY, add_special=True)["tokens"]
    one = complete(api, STORY)["content"]
    prompts = [tokens, STORY, {"prompt_string": STORY}, [*tokens[:1], STORY]]
    answers = complete(api, prompts)
    assert [each["index"] for each in answers] == [0, 1, 2, 3]
    assert [each["content"] for each in answers[:3]] == [one] * 3
    assert complete(api, [STORY])["content"] == one
    picked = complete(api, [STORY, STORY], response_fields=["content"])
    assert picked == [{"content": one}, {"content": one}]


def test_a_list_of_prompts_is_streamed_with_indexes(api: httpx.Client) -> None:
    made = events(api, model="demo", prompt=[STORY, "The sea"])
    texts = {0: "", 1: ""}
    for each in made:
        texts[each["index"]] += each["content"]
    assert texts[0] == complete(api, STORY)["content"]
    assert texts[1] == complete(api, "The sea")["content"]
    assert sorted(each["index"] for each in made if each["stop"]) == [0, 1]


def test_several_answers_to_one_prompt_differ_in_their_seeds(api: httpx.Client) -> None:
    hot = {"temperature": 4, "min_p": 0, "top_k": 0, "top_p": 1, "seed": 7, "n_predict": 12}
    made = complete(api, STORY, n=3, **hot)
    assert [each["generation_settings"]["seed"] for each in made] == [7, 8, 9]
    assert len({each["content"] for each in made}) > 1
    assert made[0]["content"] == complete(api, STORY, **hot)["content"]


def test_null_means_absent(api: httpx.Client) -> None:
    names = ("model", "stop", "stream", "keep_alive", "priority", "n_probs", "json_schema", "seed")
    nothing = dict.fromkeys((*names, "cache_prompt", "response_fields", "n", "lora"))
    post(api, "/api/models/demo/load")
    for path, body in (
        ("/completion", COLD | {"prompt": STORY}),
        ("/completion", COLD | {"prompt": {"prompt_string": STORY, "multimodal_data": None}}),
        ("/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("/tokenize", {"content": STORY, "add_special": None, "with_pieces": None}),
        ("/detokenize", {"tokens": [1]}),
        ("/apply-template", {"messages": [{"role": "user", "content": "Hi"}], "tools": None}),
    ):
        made = post(api, path, **nothing | body)
        assert made
        assert made.get("model", "demo") == "demo"


def test_an_unbounded_answer_ignores_the_model_s_max_tokens(api: httpx.Client) -> None:
    body = {"model": "short", "prompt": STORY, "temperature": 0, "ignore_eos": True}
    assert post(api, "/completion", **body)["tokens_predicted"] == 3
    made = post(api, "/completion", **body, n_predict=-1)
    assert made["tokens_evaluated"] + made["tokens_predicted"] >= CONTEXT
    assert (made["stop_type"], made["truncated"]) == ("limit", True)


@pytest.mark.parametrize("path", ["/completion", "/chat/completions"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_is_too_long_is_refused_with_its_numbers(
    api: httpx.Client, path: str, stream: bool
) -> None:
    text = "word " * 3000
    messages = [{"role": "user", "content": text}]
    body = {"model": "demo", "prompt": text, "messages": messages, "stream": stream}
    refused = api.post(path, json=body)
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert (error["code"], error["type"]) == (400, "exceed_context_size_error")
    assert error["n_ctx"] == CONTEXT
    assert error["n_prompt_tokens"] > 3000


def test_a_prompt_with_pictures(api: httpx.Client) -> None:
    red = base64.b64encode(png(255, 0, 0)).decode()
    text = complete(api, "Look:  and ", model="eye")["tokens_evaluated"]

    def tokens(string: str, data: Any) -> int:
        prompt = {"prompt_string": string, "multimodal_data": data}
        return int(complete(api, prompt, model="eye")["tokens_evaluated"])

    one = tokens("Look: <__media__> and ", [red])
    assert one >= text + 16
    assert tokens("Look: <__media__> and ", red) == one
    assert tokens("Look: <__media__><__media__> and ", [red, red]) > one
    marker = api.get("/props", params={"model": "eye"}).json()["media_marker"]
    assert tokens(f"Look: {marker} and ", [red]) == one


@pytest.mark.parametrize(
    ("model", "prompt", "words"),
    [
        ("demo", {"prompt_string": "<__media__>", "multimodal_data": ["AAAA"]}, "cannot see"),
        ("eye", {"prompt_string": "<__media__>", "multimodal_data": ["!"]}, "not valid base64"),
        ("eye", {"prompt_string": "<__media__>", "multimodal_data": ["AAAA"]}, "engine refused"),
        ("eye", {"prompt_string": "no place", "multimodal_data": ["AAAA"]}, "engine refused"),
        ("eye", {"prompt_string": [1], "multimodal_data": ["AAAA"]}, "must be a text"),
    ],
)
def test_media_that_cannot_be_read(
    api: httpx.Client, model: str, prompt: dict[str, Any], words: str
) -> None:
    refused = api.post("/completion", json={"model": model, "prompt": prompt} | COLD)
    assert refused.status_code == 400, refused.text
    assert words in refused.json()["error"]["message"]
