"""What `/v1/completions` has beyond chats: `echo`, `suffix`, `best_of`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from myllm.engine.engine import Engine
from tests.api.events import post
from tests.encoders import write_gemma2
from tests.serving import Serving, serving, short_home

PATH = "/v1/completions"
PROMPT = "Count to one"
GREEDY: dict[str, Any] = {"model": "demo", "temperature": 0, "max_tokens": 20}


def words(api: httpx.Client, **fields: Any) -> str:
    """Return the message of a refusal."""
    answer = api.post(PATH, json=GREEDY | {"prompt": PROMPT} | fields)
    assert answer.status_code == 400, answer.text
    return str(answer.json()["error"]["message"])


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as home:
        write_gemma2(home / "models/gemma/gemma.gguf")
        with serving(home) as running:
            yield running


def streamed(api: httpx.Client, **fields: Any) -> tuple[dict[int, str], list[dict[str, Any]]]:
    """Return the text of each choice of a stream, and its chunks."""
    body = GREEDY | fields | {"stream": True, "stream_options": {"include_usage": True}}
    answer = api.post(PATH, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.text.endswith("data: [DONE]\n\n")
    chunks = [json.loads(line[6:]) for line in answer.text.splitlines() if line[6:7] == "{"]
    texts: dict[int, str] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
    return texts, chunks


@pytest.mark.parametrize("prompt", [PROMPT, 'Say "äöü"\n'])
def test_an_answer_that_begins_with_its_prompt(api: httpx.Client, prompt: str) -> None:
    plain = post(api, PATH, **GREEDY, prompt=prompt)
    echoed = post(api, PATH, **GREEDY, prompt=prompt, echo=True)
    expected = prompt + plain["choices"][0]["text"]
    assert echoed["choices"][0]["text"] == expected
    assert echoed["usage"]["completion_tokens"] == plain["usage"]["completion_tokens"]
    texts, chunks = streamed(api, prompt=prompt, echo=True)
    assert texts == {0: expected}
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_each_of_several_answers_begins_with_its_own_prompt(api: httpx.Client) -> None:
    prompts = [PROMPT, "What is the capital of"]
    echoed = post(api, PATH, **GREEDY, prompt=prompts, echo=True, n=2)
    texts = [choice["text"] for choice in echoed["choices"]]
    assert [text.startswith(prompts[n // 2]) for n, text in enumerate(texts)] == [True] * 4
    assert streamed(api, prompt=prompts, echo=True, n=2)[0] == dict(enumerate(texts))


def test_an_echo_outlives_its_engine(api: httpx.Client, server: Serving) -> None:
    body = GREEDY | {"prompt": PROMPT, "echo": True, "max_tokens": 60}
    undisturbed = post(api, PATH, **body)["choices"][0]["text"]
    text = ""
    with api.stream("POST", PATH, json=body | {"stream": True}) as answer:
        for line in answer.iter_lines():
            if not text:
                for engine in server.engines():
                    engine.kill()
            if line[6:7] == "{":
                text += json.loads(line[6:])["choices"][0]["text"]
    assert text == undisturbed


def test_the_text_between_two_others(api: httpx.Client) -> None:
    asked = GREEDY | {"model": "gemma", "max_tokens": 4}
    filled = post(api, PATH, **asked, prompt="def ", suffix="()")
    native = post(
        api, "/infill", input_prefix="def ", input_suffix="()", model="gemma", n_predict=4,
        temperature=0, top_p=1,
    )  # fmt: skip
    [choice] = filled["choices"]
    assert choice == {
        "index": 0, "text": native["content"], "finish_reason": "length", "logprobs": None,
    }  # fmt: skip
    assert (filled["object"], filled["model"]) == ("text_completion", "gemma")
    assert filled["usage"]["completion_tokens"] == 4
    assert filled["usage"]["prompt_tokens"] == native["tokens_evaluated"]
    texts, chunks = streamed(api, prompt="def ", suffix="()", model="gemma", max_tokens=4)
    assert texts == {0: choice["text"]}
    assert chunks[-1]["usage"]["completion_tokens"] == 4
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_openais_client_fills_in_several(server: Serving) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    made = client.completions.create(
        model="gemma", prompt=["def ", "class "], suffix="()", n=2, max_tokens=2
    )
    assert [choice.index for choice in made.choices] == [0, 1, 2, 3]
    assert made.usage is not None
    assert made.usage.completion_tokens <= 8


def test_a_model_without_tokens_for_the_middle_is_named(api: httpx.Client) -> None:
    assert "Infill is not supported by this model" in words(api, suffix="()")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"echo": True, "logprobs": 1}, "echo and logprobs cannot be combined"),
        ({"suffix": "x", "logprobs": 0}, "suffix and logprobs cannot be combined"),
        ({"suffix": "x", "echo": True}, "echo and suffix cannot be combined"),
        ({"echo": True, "prompt": [1, 2]}, "echo needs a prompt that is a text, not tokens"),
        ({"suffix": "x", "prompt": ["a", [1]]}, "suffix needs a prompt that is a text, not tokens"),
        ({"best_of": 3}, "best_of must equal n: answers are not ranked"),
        ({"best_of": 3, "n": 2}, "best_of must equal n"),
    ],
)
def test_what_cannot_be_done_is_refused(
    api: httpx.Client, fields: dict[str, Any], told: str
) -> None:
    assert told in words(api, **fields)


@pytest.mark.parametrize(
    "fields", [{"echo": False, "suffix": "", "best_of": 1}, {"suffix": None}, {"echo": None}]
)
def test_values_that_ask_for_nothing(api: httpx.Client, fields: dict[str, Any]) -> None:
    plain = post(api, PATH, **GREEDY, prompt=PROMPT)
    assert post(api, PATH, **GREEDY, prompt=PROMPT, **fields)["choices"] == plain["choices"]


@pytest.mark.parametrize(
    ("wanted", "answer"),
    [
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": [7]}}}, 7),
        ({"type": "json_object", "schema": {"enum": [{"a": 1}]}}, {"a": 1}),
    ],
)
def test_a_format_holds_without_a_chat_too(api: httpx.Client, wanted: Any, answer: Any) -> None:
    made = post(api, PATH, **GREEDY, prompt=PROMPT, response_format=wanted)
    assert json.loads(made["choices"][0]["text"]) == answer


@pytest.mark.parametrize("wanted", ["json", {"type": "regex"}, {"type": "json_schema"}])
def test_an_unknown_format_is_refused(api: httpx.Client, wanted: Any) -> None:
    assert "response_format must be of type text" in words(api, response_format=wanted)


def test_texts_and_tokens_in_one_list(api: httpx.Client) -> None:
    tokens = post(api, "/tokenize", model="demo", content=PROMPT, add_special=True)["tokens"]
    made = post(api, PATH, **GREEDY, prompt=[PROMPT, tokens])
    first, second = (choice["text"] for choice in made["choices"])
    assert first == second
