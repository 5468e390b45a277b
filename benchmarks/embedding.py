"""Measure embeddings against llama-server alone, with a trained encoder.

    python -m benchmarks.embedding [--json] [--rounds N]

Prints one table and exits 1 when a bound is missed. Requests alternate between both, so that a
temporary slowdown of the machine affects both.
"""

from __future__ import annotations

import argparse
import random
import sys
import time

import httpx

from benchmarks.figures import Figure, median_of, print_json, print_table
from benchmarks.models import minilm_path, real_models_dir
from benchmarks.servers import bare_engine, kept_settings, myllm_server
from myllm.engine.find import find_engine
from myllm.settings import load_settings
from scripts.fetch_real_models import MINILM

TEXTS = 64
_LENGTHS = (6, 18)
_WORDS = "the cat server model memory answer quick brown fox river city people walk market and of"


def texts(count: int = TEXTS) -> list[str]:
    """Sentences of 6 to 18 words, always the same."""
    chosen, words = random.Random(1), _WORDS.split()
    return [" ".join(chosen.choices(words, k=chosen.randint(*_LENGTHS))) for _ in range(count)]


def alternating(rounds: int, **settings: object) -> tuple[list[float], list[float]]:
    """Seconds that MyLLM and llama-server with its defaults take for one request of 64 texts,
    round by round, after one round to warm up."""
    engine = find_engine(load_settings())
    assert engine is not None, "no engine"  # the callers have checked this
    plain = [str(engine.server), "--embeddings", "--model", str(minilm_path()), "--host", "socket"]
    body = {"model": MINILM, "input": texts()}
    with (
        myllm_server(**kept_settings(models_dir=real_models_dir(), **settings)) as server,
        server.client() as mine,
        bare_engine(plain) as alone,
        alone.client() as theirs,
    ):
        pairs = [(_seconds(mine, body), _seconds(theirs, body)) for _ in range(rounds + 1)]
    return [ours for ours, _ in pairs[1:]], [direct for _, direct in pairs[1:]]


def _seconds(client: httpx.Client, body: dict[str, object]) -> float:
    began = time.perf_counter()
    answer = client.post("/v1/embeddings", json=body).raise_for_status()
    took = time.perf_counter() - began
    assert len(answer.json()["data"]) == TEXTS
    return took


def measure(rounds: int) -> list[Figure]:
    """The share has the bound; the seconds explain it."""
    ours, direct = alternating(rounds)
    shares = [mine / theirs for mine, theirs in zip(ours, direct, strict=True)]
    return [
        median_of(f"{TEXTS} texts: time of llama-server's", shares, 1.0, "x"),
        median_of("MyLLM", ours),
        median_of("llama-server --embeddings", direct),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    if find_engine(load_settings()) is None:
        parser.exit(2, "no engine to measure with; compile one: myllm engine build\n")
    figures = measure(args.rounds)
    (print_json if args.json else print_table)(figures)
    return 0 if all(figure.ok for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
