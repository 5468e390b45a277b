"""Embeddings and scores in OpenAI's and Jina's forms, by encoders on a real engine."""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.api.events import detail, post
from tests.encoders import CLS, CONTEXT, DIM, SEP, WORD_PIECES, write_bert
from tests.serving import Serving, serving, short_home, wait_until

PATH, RERANK = "/v1/embeddings", "/v1/rerank"
QUERY = "what is a cat"
TEXTS = ["a dog barks", "a cat is an animal", "zzz"]
# What is computed together with others is added up in another order than alone.
ABOUT = 0.002


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as home:
        write_bert(home / "models/bert/bert.gguf")
        write_bert(home / "models/nested/bert.gguf")
        write_bert(home / "models/unpooled/bert.gguf", pooling=False)
        write_bert(home / "models/ranker/bert.gguf", rank=True)
        (home / "models/nested/config.json").write_text(json.dumps({"matryoshka": True}))
        with serving(home) as running:
            yield running


def embed(api: httpx.Client, given: Any, model: str = "bert", **more: Any) -> list[Any]:
    """Return the vectors of an answer, after checking its form."""
    answer = post(api, PATH, model=model, input=given, **more)
    assert (answer["object"], answer["model"]) == ("list", model)
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 0
    assert [item["index"] for item in answer["data"]] == list(range(len(answer["data"])))
    assert {item["object"] for item in answer["data"]} == {"embedding"}
    return [item["embedding"] for item in answer["data"]]


def refused(answer: httpx.Response, status: int = 400) -> str:
    """Return the message of an error in OpenAI's form."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return str(error["message"])


def tokens(word: str) -> list[int]:
    """One short word as a bert sees it."""
    first, rest = f"\N{LOWER ONE EIGHTH BLOCK}{word[0]}", word[1:]
    return [CLS, *(WORD_PIECES.index(piece) for piece in (first, *rest)), SEP]


def test_a_text_its_tokens_and_several_of_either(api: httpx.Client) -> None:
    [cat] = embed(api, "cat")
    assert len(cat) == DIM
    assert math.hypot(*cat) == pytest.approx(1, abs=1e-4)
    assert embed(api, tokens("cat")) == [pytest.approx(cat, abs=1e-5)]
    [dog, again] = embed(api, ["dog", "cat"])
    assert again == pytest.approx(cat, abs=ABOUT)
    assert dog != pytest.approx(cat, abs=0.05)
    both = embed(api, [tokens("dog"), tokens("cat")])
    assert both == [pytest.approx(dog, abs=ABOUT), pytest.approx(cat, abs=ABOUT)]
    usage = post(api, PATH, model="bert", input=[tokens("dog"), tokens("cat")])["usage"]
    assert usage == {"prompt_tokens": 10, "total_tokens": 10}


def test_texts_tokens_and_objects_in_one_list(api: httpx.Client) -> None:
    [cat], [dog] = embed(api, "cat"), embed(api, "dog")
    made = embed(api, ["cat", tokens("dog"), {"prompt_string": "cat"}, {"prompt_string": "dog"}])
    assert made == [pytest.approx(each, abs=ABOUT) for each in (cat, dog, cat, dog)]
    [alone] = embed(api, {"prompt_string": "cat"})
    assert alone == pytest.approx(cat, abs=1e-5)


def test_one_input_of_texts_and_tokens(api: httpx.Client) -> None:
    """A list with a number in it is one input, as it is for llama.cpp."""
    [cat] = embed(api, "cat")
    first, *rest = tokens("cat")
    assert embed(api, [first, *rest[:-1], SEP]) == [pytest.approx(cat, abs=1e-5)]
    mixed = embed(api, ["cat", SEP])
    assert len(mixed) == 1
    assert len(embed(api, [["cat", SEP], "dog"])) == 2


def test_the_model_can_be_left_out_where_only_one_is_meant(api: httpx.Client) -> None:
    for name in ("bert", "nested", "unpooled", "demo"):
        api.post(f"/api/models/{name}/unload", params={"force": "true"})
    assert post(api, RERANK, query=QUERY, documents=TEXTS)["model"] == "ranker"
    said = refused(api.post(PATH, json={"input": "cat"}))
    assert "model is required, for it could be any of these" in said
    embed(api, "cat")
    for model in ({}, {"model": None}, {"model": ""}):
        assert post(api, PATH, input="cat", **model)["model"] == "bert"


def test_many_texts_keep_their_order(api: httpx.Client) -> None:
    words = [f"{first}{second}" for first in "abcdefghij" for second in "abcdefghij"]
    made = embed(api, words)
    assert len(made) == len(words)
    for index in (0, 15, 16, 63, 64, 99):
        assert embed(api, words[index]) == [pytest.approx(made[index], abs=ABOUT)]
        assert made[index] != pytest.approx(made[index - 1], abs=0.05)


def test_numbers_or_base64(api: httpx.Client) -> None:
    [numbers] = embed(api, "cat", encoding_format="float")
    [encoded] = embed(api, "cat", encoding_format="base64")
    assert struct.unpack(f"<{DIM}f", base64.b64decode(encoded)) == pytest.approx(numbers)


def test_a_model_without_a_pooling_takes_the_mean(api: httpx.Client) -> None:
    [vector] = embed(api, "cat", "unpooled")
    assert math.hypot(*vector) == pytest.approx(1, abs=1e-4)


def test_the_demo_model_embeds_too(api: httpx.Client) -> None:
    [vector] = embed(api, "Hello", "demo")
    assert len(vector) == 256
    [old] = [post(api, "/api/embeddings", model="demo", input="Hello")["embedding"]]
    assert vector == pytest.approx(old, abs=1e-5)


def test_dimensions(api: httpx.Client) -> None:
    [whole] = embed(api, "cat", "nested")
    assert embed(api, "cat", dimensions=DIM) == [pytest.approx(whole, abs=1e-5)]
    [short] = embed(api, "cat", "nested", dimensions=8)
    length = math.hypot(*whole[:8])
    assert short == pytest.approx([value / length for value in whole[:8]], abs=1e-5)
    for model, wanted, words in (
        ("bert", 8, "dimensions must be exactly 32 for model 'bert', not 8"),
        ("nested", 33, "dimensions must be at most 32 for model 'nested', not 33"),
    ):
        answer = api.post(PATH, json={"model": model, "input": "cat", "dimensions": wanted})
        assert refused(answer) == words


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("", "input must not be empty"),
        ([], "input must not be empty"),
        (["cat", ""], "input must not be empty"),
        ([[]], "input must not be empty"),
        (None, "input must not be empty"),
        ([-1], "input must be a text, tokens, or a list of texts and tokens"),
        ([[["cat"]]], "input must be a text, tokens, or a list of texts and tokens"),
        ({"text": "cat"}, "input must not be empty"),
        (
            {"prompt_string": "cat", "multimodal_data": ["aGk="]},
            "input must be texts or tokens: pictures and sounds cannot be embedded",
        ),
        (["cat", [10_000, "cat"]], "Input 1 has token 10000, but the model knows 141 tokens"),
        ([[2, 10_000]], "Input has token 10000, but the model knows 141 tokens"),
        ("x" * 200, f"Input too long for embeddings ({CONTEXT} tokens): 202 tokens"),
        ([[7], [7] * 129], f"Input 1 too long for embeddings ({CONTEXT} tokens): 129 tokens"),
    ],
)
def test_what_cannot_be_embedded(api: httpx.Client, given: Any, words: str) -> None:
    assert words in refused(api.post(PATH, json={"model": "bert", "input": given}))


def rerank(api: httpx.Client, path: str = RERANK, **more: Any) -> Any:
    return post(api, path, **{"model": "ranker", "query": QUERY, "documents": TEXTS} | more)


def test_documents_are_sorted_by_their_scores(api: httpx.Client) -> None:
    answer = rerank(api)
    assert (answer["object"], answer["model"]) == ("list", "ranker")
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 30
    results = answer["results"]
    scores = [result["relevance_score"] for result in results]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 3
    for result in results:
        assert set(result) == {"index", "relevance_score"}
        [alone] = rerank(api, documents=[TEXTS[result["index"]]])["results"]
        assert alone["relevance_score"] == pytest.approx(result["relevance_score"], abs=ABOUT)


def test_the_best_ones_with_their_texts(api: httpx.Client) -> None:
    best = rerank(api)["results"]
    objects = [{"text": text} for text in TEXTS]
    more = {"documents": objects, "top_n": 2, "return_documents": True}
    results = rerank(api, "/v1/reranking", **more)["results"]
    assert [each["index"] for each in results] == [each["index"] for each in best[:2]]
    assert [each["document"] for each in results] == [objects[each["index"]] for each in results]
    assert len(rerank(api, top_n=10)["results"]) == 3


def test_texts_are_scored_in_the_form_of_text_embeddings_inference(api: httpx.Client) -> None:
    scores = {each["index"]: each["relevance_score"] for each in rerank(api)["results"]}
    asked = {"model": None, "query": QUERY, "texts": TEXTS, "truncate": True}
    squeezed = post(api, RERANK, **asked)
    assert [set(each) for each in squeezed] == [{"index", "score"}] * 3
    for each in squeezed:
        expected = 1 / (1 + math.exp(-scores[each["index"]]))
        assert each["score"] == pytest.approx(expected, abs=ABOUT)
    raw = post(api, "/rerank", **asked, raw_scores=True, return_text=True)
    assert [each["index"] for each in raw] == [each["index"] for each in squeezed]
    for each in raw:
        assert each["score"] == pytest.approx(scores[each["index"]], abs=ABOUT)
        assert each["text"] == TEXTS[each["index"]]


def test_more_documents_than_are_read_at_once(api: httpx.Client) -> None:
    documents = [f"{first}{second}" for first in "abcdefghij" for second in "abcdefg"]
    results = rerank(api, documents=documents)["results"]
    assert sorted(each["index"] for each in results) == list(range(70))
    [last] = [each for each in results if each["index"] == 69]
    [alone] = rerank(api, documents=documents[69:])["results"]
    assert last["relevance_score"] == pytest.approx(alone["relevance_score"], abs=ABOUT)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"query": " "}, "query must not be empty"),
        ({"documents": []}, "documents must not be empty"),
        ({"documents": None}, "documents must not be empty"),
        ({"documents": None, "texts": []}, "documents must not be empty"),
        ({"top_n": 0}, "top_n must be 1 or more"),
        (
            {"documents": ["a", "x" * 200]},
            f"Query and document too long for reranking ({CONTEXT} tokens): 212 tokens",
        ),
        ({"model": "bert"}, "Model 'bert' makes embeddings only"),
        ({"model": "demo"}, "Model 'demo' is not a reranker"),
    ],
)
def test_what_cannot_be_reranked(api: httpx.Client, more: dict[str, Any], words: str) -> None:
    body = {"model": "ranker", "query": QUERY, "documents": TEXTS} | more
    assert words in refused(api.post(RERANK, json=body))


def test_a_reranker_does_nothing_else(api: httpx.Client) -> None:
    words = "Model 'ranker' scores documents only; use it with POST /v1/rerank"
    hi = [{"role": "user", "content": "hi"}]
    assert refused(api.post(PATH, json={"model": "ranker", "input": "cat"})) == words
    chat = {"model": "ranker", "messages": hi}
    assert refused(api.post("/v1/chat/completions", json=chat)) == words
    assert detail(api.post("/api/chat", json=chat), 400) == words
    embeddings = {"model": "ranker", "input": "cat"}
    assert detail(api.post("/api/embeddings", json=embeddings), 400) == words


def test_a_reranker_as_it_is_shown(api: httpx.Client, server: Serving) -> None:
    api.post("/api/models/ranker/unload")
    assert post(api, "/api/models/ranker/load")["message"] == "Model 'ranker' loaded"
    [one] = [i for i in api.get("/api/instances").json()["instances"] if i["model"] == "ranker"]
    assert (one["role"], one["state"], one["context_size"]) == ("rerank", "ready", CONTEXT)
    assert one["slots"] == {"busy": 0, "total": 16}
    assert one["kv_restore"] == "embedding and reranking engines hold no conversations"
    rerank(api)
    [same] = [i for i in api.get("/api/instances").json()["instances"] if i["model"] == "ranker"]
    assert same["pid"] == one["pid"]
    assert api.get("/api/models/ranker").json()["context_size"] == CONTEXT


def test_scores_outlive_their_engine(api: httpx.Client, server: Serving) -> None:
    before = rerank(api)["results"]
    [engine] = [each for each in server.engines() if "ranker" in each.cmdline()]
    engine.suspend()  # so that it dies under the request
    documents = [*TEXTS, "more"]
    with server.client() as client, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(rerank, client, documents=documents)
        wait_until(lambda: api.get("/health").json()["active"] == 1, 10, "a request")
        engine.kill()
        after = {each["index"]: each["relevance_score"] for each in answer.result()["results"]}
    for each in before:
        assert after[each["index"]] == pytest.approx(each["relevance_score"], abs=ABOUT)
