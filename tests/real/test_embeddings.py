"""A converted sentence encoder: its vectors have the similarities that its authors publish."""

from __future__ import annotations

import statistics

import httpx
import numpy as np
import pytest

from benchmarks.embedding import alternating
from myllm.engine.engine import Engine
from tests.real_models import MINILM


def cosines(api: httpx.Client, first: str, others: list[str]) -> list[float]:
    """The cosine similarity of each of `others` to `first`."""
    body = {"model": MINILM, "input": [first, *others]}
    answer = api.post("/api/embeddings", json=body).raise_for_status().json()
    vectors = np.array(answer["embeddings"])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [float(each) for each in vectors[1:] @ vectors[0]]


def test_sentences_of_one_meaning_are_as_close_as_published(api: httpx.Client) -> None:
    close, unrelated = cosines(
        api,
        "The cat sat on the mat",
        ["A feline rested on the rug", "Quarterly earnings exceeded expectations"],
    )
    assert close == pytest.approx(0.56, abs=0.02)
    assert unrelated < 0.1


def test_the_model_cards_example_has_its_published_values(api: httpx.Client) -> None:
    others = ["That is a happy dog", "That is a very happy person", "Today is a sunny day"]
    assert cosines(api, "That is a happy person", others) == pytest.approx(
        [0.695, 0.943, 0.257], abs=0.01
    )


def test_accents_and_capitals_make_no_difference(api: httpx.Client) -> None:
    same, other = cosines(api, "Crème brûlée in a café", ["CREME BRULEE IN A CAFE", "A tax form"])
    assert same == pytest.approx(1.0, abs=0.001)
    assert other < 0.3


def test_a_batch_takes_no_longer_than_by_llama_server(engine: Engine) -> None:
    """Exclude only a far longer time; `benchmarks.embedding` measures as long or less."""
    ours, direct = alternating(rounds=3)
    assert statistics.median(ours) < 10 * statistics.median(direct)
