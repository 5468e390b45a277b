"""What programs send to Ollama: nulls, Go's names, tools, suffixes, and names with `:latest`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from myllm.engine.engine import Engine
from myllm.gateway.conversation.ignored import HEADER
from tests.api.events import post
from tests.encoders import write_bert, write_gemma2
from tests.serving import Serving, serving, short_home
from tests.tooled import OPEN_THOUGHTS, THOUGHTS, TOOLS, WEATHER, add_model

FRANCE = "What is the capital of France?"
PARIS = "The capital of France is Paris."
USER = {"role": "user", "content": FRANCE}
SHORT = {"num_predict": 1}


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as home:
        add_model(home / "models", "tools", TOOLS)
        add_model(home / "models", "thoughts", THOUGHTS)
        add_model(home / "models", "memories", OPEN_THOUGHTS)
        write_gemma2(home / "models/gemma/gemma.gguf")
        write_bert(home / "models/bert/bert.gguf")
        with serving(home) as running:
            yield running


def chat(api: httpx.Client, *messages: Any, **more: Any) -> Any:
    body = {"model": "tools", "messages": messages, "stream": False} | more
    return post(api, "/ollama/api/chat", **body)


def test_null_means_absent(api: httpx.Client) -> None:
    options = dict.fromkeys(("temperature", "top_k", "stop", "seed", "num_ctx", "num_predict"))
    nothing = dict.fromkeys(("keep_alive", "format", "think", "options", "tools", "template"))
    nothing |= dict.fromkeys(("system", "images", "raw", "suffix", "context", "truncate"))
    message = USER | dict.fromkeys(("images", "tool_calls", "thinking", "tool_name", "name"))
    body = nothing | {"model": "demo", "stream": False}
    path = "/ollama/api/chat"
    assert post(api, path, **body | {"messages": [message]})["message"]["content"] == PARIS
    body |= {"options": options}
    assert post(api, path, **body | {"messages": [message]})["message"]["content"] == PARIS
    assert post(api, "/ollama/api/generate", **body | {"prompt": FRANCE})["response"] == PARIS
    assert post(api, "/ollama/api/embed", **body | {"input": FRANCE})["embeddings"]
    assert post(api, "/ollama/api/embeddings", **body | {"prompt": FRANCE})["embedding"]
    assert post(api, "/ollama/api/show", **body | {"verbose": None})["details"]
    lines = api.post(path, json=body | {"stream": None, "messages": [message]}).text.splitlines()
    assert json.loads(lines[-1])["done"] is True


def test_names_may_be_capitalised(api: httpx.Client) -> None:
    message = {"Role": "user", "Content": FRANCE}
    body = {"Model": "demo", "Messages": [message], "Stream": False}
    whole = post(api, "/ollama/api/chat", **body)
    assert (whole["model"], whole["message"]["content"]) == ("demo", PARIS)
    cut = post(api, "/ollama/api/chat", **body, Options={"Num_Predict": 3})
    assert cut["eval_count"] == 3


def test_tools_as_go_programs_write_them(api: httpx.Client) -> None:
    schema = {"type": "object", "$defs": None, "items": None, "required": ["city"]}
    city = {"type": ["string"], "items": None, "description": "", "enum": ["Paris"]}
    parameters = schema | {"properties": {"city": city}}
    small = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
    capital = {"Type": "function", "Function": {"Name": "weather", "Parameters": parameters}}
    for tool in (small, capital):
        [call] = chat(api, USER, tools=[tool])["message"]["tool_calls"]
        assert call["function"]["name"] == "weather"
        assert call["function"]["arguments"] == {"city": "Paris"}
    nothing = {"type": "object", "required": None, "properties": None}
    no_words = {"name": "weather", "description": None, "parameters": nothing}
    calls = chat(api, USER, tools=[{"function": no_words}])["message"]["tool_calls"]
    assert {each["function"]["name"] for each in calls} == {"weather"}
    assert all(each["function"]["arguments"] == {} for each in calls)


def test_a_format_is_refused_if_tools_may_be_called(api: httpx.Client) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": WEATHER}}
    body = {"model": "tools", "messages": [USER], "stream": False}
    for form in ("json", WEATHER):
        answer = api.post("/ollama/api/chat", json=body | {"tools": [tool], "format": form})
        assert answer.status_code == 400
        assert "leave out the tools or the format" in answer.json()["error"]
        answer = api.post("/ollama/api/chat", json=body | {"tools": [], "format": form})
        assert answer.status_code == 200


def test_other_tools_are_left_out_and_named(api: httpx.Client) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": WEATHER}}
    body = {"model": "tools", "messages": [USER], "stream": False}
    body |= {"tools": [{"type": "web_search"}, tool]}
    answer = api.post("/ollama/api/chat", json=body)
    assert answer.headers[HEADER] == "tools[0] (web_search)"
    assert answer.json()["message"]["tool_calls"]
    # Without any function left, the model need not know tools.
    body |= {"model": "demo", "tools": [{"type": "web_search"}]}
    answer = api.post("/ollama/api/chat", json=body)
    assert answer.headers[HEADER] == "tools[0] (web_search)"
    assert answer.json()["message"]["content"] == PARIS


@pytest.mark.parametrize(
    "arguments", [{"city": "Paris"}, '{"city": "Paris"}', '{"city": "Pa', "", None]
)
def test_calls_in_the_history_never_stop_a_conversation(api: httpx.Client, arguments: Any) -> None:
    call = {"function": {"name": "weather", "arguments": arguments}}
    for result in (
        {"role": "tool", "content": "It is sunny.", "tool_name": "weather"},
        {"role": "tool", "content": "It is sunny.", "name": "weather"},
        {"role": "tool", "content": "It is sunny."},
        {"role": "tool", "content": "It is sunny.", "tool_name": "unheard of"},
    ):
        asked = {"role": "assistant", "content": None, "tool_calls": [call]}
        more = chat(api, USER, asked, result, options=SHORT)["prompt_eval_count"]
        assert more > chat(api, USER, options=SHORT)["prompt_eval_count"]


def test_thoughts_in_the_history_reach_the_template(api: httpx.Client) -> None:
    def tokens(**thoughts: str) -> int:
        said = {"role": "assistant", "content": "Hm.", **thoughts}
        body = {"model": "memories", "options": SHORT}
        return int(chat(api, USER, said, USER, **body)["prompt_eval_count"])

    assert tokens(thinking="France is a country in Europe.") > tokens() + 5


@pytest.mark.parametrize("think", [True, False, "low", "medium", "high", "max", None])
def test_levels_of_thinking(api: httpx.Client, think: Any) -> None:
    made = chat(api, USER, model="thoughts", think=think)["message"]
    if think is not False:
        assert made["thinking"] == PARIS
    assert chat(api, USER, model="demo", think=think)["message"]["content"] == PARIS


def test_a_suffix_is_filled_in_by_models_that_can(api: httpx.Client) -> None:
    body = {"model": "gemma", "prompt": "def ", "suffix": "()", "options": {"num_predict": 4}}
    whole = post(api, "/ollama/api/generate", **body, stream=False)
    assert (whole["done_reason"], whole["eval_count"]) == ("length", 4)
    alone = post(api, "/ollama/api/generate", **body | {"suffix": "", "raw": True}, stream=False)
    assert whole["prompt_eval_count"] > alone["prompt_eval_count"]
    lines = [json.loads(each) for each in api.post("/ollama/api/generate", json=body).iter_lines()]
    assert lines[-1]["eval_count"] == 4
    named = api.post("/ollama/api/generate", json=body | {"system": "Be brief.", "stream": False})
    assert named.headers[HEADER] == "system"
    refused = api.post("/ollama/api/generate", json=body | {"model": "demo"})
    assert refused.status_code == 400
    assert "Infill is not supported by this model" in refused.json()["error"]


def test_every_route_knows_names_with_latest(api: httpx.Client) -> None:
    name = {"model": "tools:latest", "stream": False}
    assert chat(api, USER, **name)["model"] == "tools:latest"
    assert post(api, "/ollama/api/generate", prompt="Hi", options=SHORT, **name)["done"]
    assert post(api, "/ollama/api/generate", **name)["done_reason"] == "load"
    assert post(api, "/ollama/api/generate", **name, keep_alive=0)["done_reason"] == "unload"
    assert post(api, "/ollama/api/embed", model="bert:latest", input="cat")["embeddings"]
    assert post(api, "/ollama/api/embeddings", model="bert:latest", prompt="cat")["embedding"]
    assert post(api, "/ollama/api/show", **name)["details"]
    copied = {"source": "tools:latest", "destination": "copied:latest"}
    assert api.post("/ollama/api/copy", json=copied).status_code == 200
    assert api.request("DELETE", "/ollama/api/delete", json={"model": "copied:latest"}).is_success
    answer = api.get("/ollama/v1/models/tools:latest")
    assert answer.json()["id"] == "tools:latest"
