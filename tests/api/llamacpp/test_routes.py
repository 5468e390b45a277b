"""llama.cpp's own paths, as its clients use them, on a real engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from myllm.engine.engine import Engine
from tests.api.events import post
from tests.encoders import DIM, write_bert, write_gemma2
from tests.serving import Serving, serving, short_home

HI = [{"role": "user", "content": "What is the capital of France?"}]
PARIS = "The capital of France is Paris."
COLD: dict[str, Any] = {"temperature": 0, "n_predict": 12}
REACHING = {"id_slot": 7, "cache_prompt": False, "lora": [{"id": 0, "scale": 1}]} | {
    "n_cache_reuse": 256,
    "n_keep": -1,
    "slot_id": 7,
    "grammar_lazy": True,
}


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as home:
        write_bert(home / "models/bert/bert.gguf")
        write_bert(home / "models/ranker/bert.gguf", rank=True)
        write_gemma2(home / "models/gemma/gemma.gguf")
        with serving(home) as running:
            yield running


@pytest.fixture
def loaded(api: httpx.Client) -> str:
    """Load the demo model alone."""
    for name in ("bert", "ranker", "gemma", "demo"):
        api.post(f"/api/models/{name}/unload", params={"force": "true"})
    return str(post(api, "/api/models/demo/load")["message"])


def refused(answer: httpx.Response, status: int = 400) -> str:
    """Return the message of an error."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) >= {"message", "type", "code"}
    return str(error["message"])


def events(api: httpx.Client, path: str, **body: Any) -> list[dict[str, Any]]:
    with api.stream("POST", path, json=body | {"stream": True}) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        lines = [line for line in answer.iter_lines() if line.startswith("data: ")]
    return [json.loads(line[len("data: ") :]) for line in lines]


def prompt(api: httpx.Client) -> str:
    return str(post(api, "/apply-template", model="demo", messages=HI)["prompt"])


@pytest.mark.usefixtures("loaded")
def test_a_chat_without_a_model_s_name(api: httpx.Client) -> None:
    answer = post(api, "/chat/completions", messages=HI, temperature=0)
    assert answer["choices"][0]["message"]["content"] == PARIS
    assert answer["model"] == "demo"


@pytest.mark.parametrize("path", ["/completion", "/completions"])
@pytest.mark.usefixtures("loaded")
def test_a_completion_as_a_stream_and_whole(api: httpx.Client, path: str) -> None:
    body = {"prompt": prompt(api), **COLD}
    made = events(api, path, **body)
    assert [each["stop"] for each in made] == [False] * (len(made) - 1) + [True]
    assert "".join(each["content"] for each in made) == PARIS
    whole = post(api, path, **body)
    assert whole["content"] == PARIS
    assert (whole["stop"], whole["stop_type"], whole["model"]) == (True, "eos", "demo")
    assert whole["tokens_predicted"] == made[-1]["tokens_predicted"]
    assert whole["tokens"] == []


@pytest.mark.usefixtures("loaded")
def test_reports_on_each_token_are_whole(api: httpx.Client) -> None:
    more: dict[str, Any] = {"return_tokens": True, "n_probs": 2, "stop": " Paris"}
    whole = post(api, "/completion", prompt=prompt(api), **COLD, **more)
    assert (whole["content"], whole["stop_type"]) == ("The capital of France is", "word")
    text = post(api, "/detokenize", tokens=whole["tokens"])["content"]
    assert text.startswith(whole["content"])
    assert len(whole["completion_probabilities"]) >= 5
    assert all(len(each["top_logprobs"]) == 2 for each in whole["completion_probabilities"])
    fields = ["content", "timings/predicted_n", "nothing", "stop/type"]
    some = post(api, "/completion", prompt=prompt(api), **COLD, response_fields=fields)
    assert set(some) == {"content", "timings/predicted_n"}
    assert some["content"] == PARIS


@pytest.mark.usefixtures("loaded")
def test_a_prompt_in_tokens(api: httpx.Client) -> None:
    tokens = post(api, "/tokenize", content=prompt(api), add_special=True)["tokens"]
    assert post(api, "/completion", prompt=tokens, **COLD)["content"] == PARIS
    assert post(api, "/completion", prompt=[prompt(api)], **COLD)["content"] == PARIS
    head, tail = tokens[:4], post(api, "/detokenize", tokens=tokens[4:])["content"]
    assert post(api, "/completion", prompt=[*head, tail], **COLD)["tokens_evaluated"] > 4


@pytest.mark.usefixtures("loaded")
def test_what_would_reach_into_the_engine_does_not(api: httpx.Client) -> None:
    body = {"prompt": prompt(api), **COLD, **REACHING, "n_predict": -5}
    whole = post(api, "/completion", **body)
    assert whole["content"] == PARIS
    assert 0 <= whole["id_slot"] < 4
    settings = whole["generation_settings"]
    assert (settings["n_predict"], settings["n_keep"], settings["lora"]) == (-1, 0, [])
    body["prompt"] = "word " * 200  # long enough to be known again
    for least in (0, 150):
        assert post(api, "/completion", **body)["timings"]["cache_n"] >= least


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "prompt is required"),
        ({"prompt": 5}, "prompt must be a text, a list of tokens and texts, an object with"),
        ({"prompt": ["a", 1.5]}, "or a list of such prompts"),
        ({"prompt": [{"text": "a"}]}, "an object with prompt_string"),
        ({"prompt": ["a"] * 129, "n": 2}, "prompts times n_cmpl must be 256 at most, not 258"),
        ({"prompt": ["a"] * 257}, "prompt must have 256 entries at most, not 257"),
        ({"prompt": [999_999]}, "invalid tokens"),
        ({"prompt": "word " * 3000}, "Prompt too long for context window"),
        ({"prompt": "a", "n_predict": 2**40}, "n_predict"),
        ({"prompt": "a", "seed": 2**40}, "seed"),
        ({"prompt": "a", "dry_penalty_last_n": 2**31 - 1}, "dry_penalty_last_n"),
        ({"prompt": "a", "repeat_last_n": 2**31 - 1}, "repeat_last_n"),
        ({"prompt": "a", "grammar": "root ::= ("}, "failed to parse grammar"),
        ({"prompt": "a", "model": "bert"}, "Model 'bert' makes embeddings only"),
        ({"prompt": "a", "model": "ranker"}, "Model 'ranker' scores documents only"),
    ],
)
@pytest.mark.usefixtures("loaded")
def test_what_cannot_be_completed(api: httpx.Client, body: dict[str, Any], words: str) -> None:
    assert words in refused(api.post("/completion", json=body))


@pytest.mark.usefixtures("loaded")
def test_an_empty_prompt_does_no_harm(api: httpx.Client) -> None:
    for empty in ("", [], [[]]):
        answer = api.post("/completion", json={"prompt": empty, **COLD})
        assert answer.status_code in (200, 400), answer.text
    assert post(api, "/completion", prompt=prompt(api), **COLD)["content"] == PARIS


def test_infill(api: httpx.Client) -> None:
    body = {"input_prefix": "def ", "input_suffix": "()", "n_predict": 4, "temperature": 0}
    extra = [{"text": "x = 1", "filename": "x.py"}]
    whole = post(api, "/infill", model="gemma", input_extra=extra, **body)
    assert whole["tokens_predicted"] == 4
    space = "\N{LOWER ONE EIGHTH BLOCK}"
    assert whole["prompt"].endswith(f"<PRE>{space}def{space}<SUF>{space}()<MID>")
    assert f"x{space}={space}1" in whole["prompt"]
    made = events(api, "/upstream/gemma/infill", **body)
    assert made[-1]["stop"] is True
    assert refused(api.post("/infill", json={"model": "gemma", "input_prefix": "a"})).startswith(
        "input_suffix"
    )
    words = refused(api.post("/infill", json={"model": "demo", **body}))
    assert "Infill is not supported by this model" in words


@pytest.mark.parametrize("path", ["/embedding", "/embeddings"])
def test_embeddings(api: httpx.Client, path: str) -> None:
    [one] = post(api, path, model="bert", content="cat")
    assert (one["index"], len(one["embedding"]), len(one["embedding"][0])) == (0, 1, DIM)
    several = post(api, path, model="bert", input=["dog", "cat"])
    assert [each["index"] for each in several] == [0, 1]
    assert several[1]["embedding"][0] == pytest.approx(one["embedding"][0], abs=1e-5)
    assert "must not be empty" in refused(api.post(path, json={"model": "bert", "content": ""}))


@pytest.mark.parametrize("path", ["/rerank", "/reranking"])
def test_the_only_reranker_need_not_be_named(api: httpx.Client, path: str) -> None:
    answer = post(api, path, query="what is a cat", documents=["a dog", "a cat"])
    assert answer["model"] == "ranker"
    assert sorted(each["index"] for each in answer["results"]) == [0, 1]


def test_which_model_is_meant(api: httpx.Client, loaded: str) -> None:
    assert loaded == "Model 'demo' loaded"
    assert post(api, "/completion", prompt="a", n_predict=1)["model"] == "demo"
    post(api, "/api/models/gemma/load")
    words = refused(api.post("/completion", json={"prompt": "a"}))
    assert words == "model is required, for it could be any of these: demo, gemma"
    post(api, "/api/models/demo/unload")
    assert post(api, "/completion", prompt="a", n_predict=1)["model"] == "gemma"
    post(api, "/api/models/gemma/unload")
    assert "demo, gemma" in refused(api.post("/chat/completions", json={"messages": HI}))
    assert "bert, demo, gemma, ranker" in refused(api.get("/props"))
    assert refused(api.get("/props", params={"model": "nope"}), 404).startswith("Model 'nope'")


def test_tokens_and_back(api: httpx.Client, loaded: str) -> None:
    text = "The capital of France"
    tokens = post(api, "/tokenize", content=text)["tokens"]
    assert tokens
    assert all(isinstance(token, int) for token in tokens)
    assert post(api, "/detokenize", tokens=tokens)["content"].strip() == text
    with_pieces = post(api, "/upstream/demo/tokenize", content=text, with_pieces=True)["tokens"]
    assert [each["id"] for each in with_pieces] == tokens
    special = post(api, "/tokenize", content=text, add_special=True)["tokens"]
    assert special[-len(tokens) :] == tokens
    assert len(special) > len(tokens)
    assert post(api, "/upstream/demo/detokenize", tokens=[])["content"] == ""
    for wrong in ([-1], [999_999]):
        assert "token" in refused(api.post("/detokenize", json={"tokens": wrong}))
        assert "token" in refused(api.post("/tokenize", json={"content": wrong}))
    assert post(api, "/tokenize", model="bert", content="cat", add_special=True)["tokens"][0] == 2


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/completion", '{"model": "demo", "prompt": "\\ud800", "n_predict": 1}'),
        ("/tokenize", '{"model": "demo", "content": "\\ud800"}'),
        ("/v1/embeddings", '{"model": "bert", "input": "\\ud800"}'),
        ("/v1/rerank", '{"model": "ranker", "query": "\\ud800", "documents": ["a"]}'),
        ("/v1/chat/completions", '{"model": "demo", "messages": [%s]}'),
    ],
)
def test_half_of_a_character_is_read_as_a_replacement(
    api: httpx.Client, path: str, body: str
) -> None:
    content = body.replace("%s", '{"role": "user", "content": "\\ud800"}')
    answer = api.post(path, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200, answer.text


def test_a_template_is_applied(api: httpx.Client, loaded: str) -> None:
    rendered = prompt(api)
    assert HI[0]["content"] in rendered
    again = post(api, "/upstream/demo/apply-template", messages=HI)
    assert again == {"prompt": rendered}
    picture = [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/x.png"}}]
    messages = [{"role": "user", "content": picture}]
    answer = api.post("/apply-template", json={"messages": messages})
    assert "cannot see images" in refused(answer)


@pytest.mark.parametrize("path", ["/props?model=demo", "/upstream/demo/props"])
def test_properties_without_this_machine_s_paths(
    api: httpx.Client, server: Serving, path: str
) -> None:
    answer = api.get(path)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["model_alias"], told["total_slots"]) == ("demo", 4)
    assert told["default_generation_settings"]["n_ctx"] == 2048
    assert "model_path" not in told
    assert ".gguf" not in answer.text
    assert str(server.home) not in answer.text


def test_models_are_listed_as_on_openais_path(api: httpx.Client) -> None:
    listed = api.get("/models").json()
    assert "demo" in {each["id"] for each in listed["data"]}
    assert listed == api.get("/v1/models").json()


def test_counters_and_slots(api: httpx.Client, loaded: str) -> None:
    secret = post(api, "/completion", prompt="Xyzzy " + prompt(api), n_predict=4)
    assert secret["stop"] is True
    counters = api.get("/upstream/demo/metrics")
    assert counters.status_code == 200
    assert counters.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "llamacpp:prompt_tokens_total" in counters.text
    slots = api.get("/upstream/demo/slots")
    assert [slot["id"] for slot in slots.json()] == [0, 1, 2, 3]
    assert [slot["id"] for slot in api.get("/slots").json()] == [0, 1, 2, 3]
    assert "Xyzzy" not in slots.text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "props"),
        ("POST", "slots/0?action=erase"),
        ("GET", "slots/0"),
        ("GET", "lora-adapters"),
        ("POST", "lora-adapters"),
        ("GET", "tokenize"),
        ("POST", "completion"),
        ("POST", "v1/chat/completions"),
        ("GET", "health"),
        ("DELETE", "props"),
        ("GET", ""),
    ],
)
def test_an_engine_answers_nothing_else(api: httpx.Client, method: str, path: str) -> None:
    answer = api.request(method, f"/upstream/demo/{path}")
    assert "No such route" in refused(answer, 404)


def test_the_question_of_a_client_reaches_no_engine_that_is_not_there(api: httpx.Client) -> None:
    for name, path in (("nope", "props"), ("nope", "slots"), ("demo/..%2f..", "metrics")):
        answer = api.get(f"/upstream/{name}/{path}")
        assert refused(answer, 404).startswith(f"Model '{name.replace('%2f', '/')}' not found")


@pytest.mark.usefixtures("loaded")
def test_questions_leave_conversations_their_cache(api: httpx.Client) -> None:
    def turn(session: str, text: str) -> int:
        messages = [{"role": "user", "content": text}]
        body = {"model": "demo", "messages": messages, "session_id": session, "stream": False}
        return int(post(api, "/api/chat", **body)["usage"]["cached_tokens"])

    sessions = [f"keeper-{number}" for number in range(4)]  # one for each slot
    for session in sessions:
        turn(session, "What is the capital of France?")
    for _ in range(8):
        post(api, "/tokenize", content="something else")
    assert all(turn(session, "And of Italy?") > 10 for session in sessions)
    assert post(api, "/api/models/demo/unload")["status"] == "success"


@pytest.mark.usefixtures("loaded")
def test_an_answer_outlives_its_engine(api: httpx.Client, server: Serving) -> None:
    body = {"prompt": prompt(api), "seed": 1, "temperature": 0, "n_predict": 12}
    [engine] = server.engines()
    seen: list[dict[str, Any]] = []
    with api.stream("POST", "/completion", json=body | {"stream": True}) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                seen.append(json.loads(line[len("data: ") :]))
                if len(seen) == 2:
                    psutil.Process(engine.pid).kill()
    assert "".join(each["content"] for each in seen) == PARIS
    assert seen[-1]["stop"] is True
