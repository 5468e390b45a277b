"""Both sides of `benchmarks.defaults`: llama-server alone and MyLLM, with the same requests."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import psutil

from benchmarks.peers import llama_server
from benchmarks.raw_requests import Reply, ask
from benchmarks.servers import myllm_server

MODEL = "model"
# Four prompts of 4,000 tokens at once need more than the model's own context, which llama-server
# divides among its slots by default.
CONTEXT = 4 * 8192
# Common words, most of them one token each; a new order each time defeats every cache.
_TEXT = (
    "the of and to in that is was for it with as his on be at by had not are but from or have an "
    "they which one you were her all she there would their we him been has when who will more no "
    "if out so said what up its about into than them can only other new some could time these two"
)
_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Work:
    """A number of clients at once, and the tokens of each one's prompt or answer."""

    kind: Literal["reading", "generating"]
    tokens: int
    clients: int

    def __str__(self) -> str:
        what = "reading prompts" if self.kind == "reading" else "generating answers"
        clients = "1 client" if self.clients == 1 else f"{self.clients} clients"
        return f"{what} of {self.tokens:,} tokens, {clients}"

    def is_small(self) -> bool:
        return self.clients == 1 and self.tokens <= 1000


class Side:
    """A server that is ready and idle. `gateway` is MyLLM's process, `batch` its batch size."""

    def __init__(
        self, name: str, url: str, gateway: psutil.Process | None, batch: int | None
    ) -> None:
        self.name = name
        self.url = url
        self.gateway = gateway
        self.batch = batch
        with httpx.Client(base_url=url, timeout=_TIMEOUT_S, trust_env=False) as client:
            self._word = self._tokens(client, " the")[-1]
            many = self._tokens(client, _random_text(4000))
        self._tokens_per_word = len(many) / 4000

    def _tokens(self, client: httpx.Client, text: str) -> list[int]:
        body = {"model": MODEL, "content": text}
        tokens: list[int] = client.post("/tokenize", json=body).raise_for_status().json()["tokens"]
        return tokens

    async def do(self, work: Work) -> float:
        """Seconds from the first request to the end of the last answer."""
        bodies = [self.body(work) for _ in range(work.clients)]
        began = time.monotonic()
        async with asyncio.timeout(_TIMEOUT_S):
            replies = await asyncio.gather(
                *(ask(self.url, "/v1/completions", body) for body in bodies)
            )
        took_s = time.monotonic() - began
        for reply in replies:
            _check(self.name, work, reply)
        return took_s

    def body(self, work: Work) -> dict[str, Any]:
        """A request with a prompt that neither engine has read before. Each token of the answer is
        the same word, so that no answer ends early."""
        reading = work.kind == "reading"
        words = round(work.tokens / self._tokens_per_word) if reading else 8
        return {
            "model": MODEL,
            "prompt": _random_text(words),
            "max_tokens": 1 if reading else work.tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0,
            "logit_bias": {str(self._word): 100},
        }


@contextmanager
def direct(server: Path, gguf: Path) -> Iterator[Side]:
    """`llama-server -m MODEL`, in the environment of the shell, with a context for all prompts."""
    with llama_server([str(server), "--ctx-size", str(CONTEXT)], gguf, MODEL) as peer:
        yield Side("llama-server", peer.url, None, None)


@contextmanager
def myllm(gguf: Path) -> Iterator[Side]:
    """`myllm serve` with a single setting, which keeps the model loaded. It is loaded twice: the
    first load compares batch sizes, the second uses the best."""
    with myllm_server(keep_alive=-1) as server, server.client(_TIMEOUT_S) as api:
        folder = server.models_dir / MODEL
        folder.mkdir(parents=True)
        (folder / "model.gguf").symlink_to(gguf)
        for path in ("load", "unload", "load"):
            api.post(f"/api/models/{MODEL}/{path}").raise_for_status()
        [instance] = api.get("/api/instances").json()["instances"]
        process = psutil.Process(server.process.pid)
        yield Side("MyLLM", server.url, process, instance["batch_size"])


def _random_text(words: int) -> str:
    return " ".join(random.choices(_TEXT.split(), k=words))


def _check(name: str, work: Work, reply: Reply) -> None:
    """Raise RuntimeError for an answer that does not match the request."""
    # llama-server ends its answer with the frame of a last chunk.
    if reply.status != 200 or b"data: [DONE]" not in reply.body[-100:]:
        raise RuntimeError(f"{name} answered {reply.status}: {reply.body[-300:]!r}")
    generated = reply.body.count(b'"finish_reason":null')
    expected = 1 if work.kind == "reading" else work.tokens
    if generated < expected:
        raise RuntimeError(f"{name} generated {generated} of {expected} tokens")
