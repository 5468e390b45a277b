"""How soon a slot is free after its client has left, in each phase of a request."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.figures import Figure, worst_of
from benchmarks.models import big_models_dir
from benchmarks.servers import Leaver, engine_client, myllm_server, slots_busy
from tests.serving import Serving, wait_until

_ROUNDS = 5
_BOUND_S = 1.0
# Allowed on top of the two batches after which a slot must be free.
_NOTICED_S = 0.2
_LONGEST_WAIT_S = 600.0
_PROMPT_TOKENS = 1900
_BIG = "big"


def measure_demo(models_dir: Path | None) -> list[Figure]:
    """The phases of `demo` except reading, which takes too little time to leave meanwhile."""
    with myllm_server(models_dir=models_dir, slots=1) as server:
        return _Cancels(server, "demo").short_phases()


def measure_big() -> list[Figure]:
    """All phases of a model of TinyLlama's shape, with a long prompt."""
    with myllm_server(models_dir=big_models_dir(), slots=1) as server:
        cancels = _Cancels(server, _BIG)
        return [*cancels.short_phases(), *cancels.reading()]


@dataclass
class _Cancels:
    """Leaves requests to one model, on a server with a single slot."""

    server: Serving
    model: str
    prompts: int = 0
    end_token: int | None = None

    def short_phases(self) -> list[Figure]:
        """The client leaves while the model loads, in the queue, and during the answer."""
        with self.server.client() as api:
            loading = [self._while_loading(api) for _ in range(_ROUNDS)]
            with self._engine() as engine:
                self.end_token = _end_token(engine)
                queued = [self._while_queued(api, engine) for _ in range(_ROUNDS)]
                answering = [self._while_answering(engine) for _ in range(_ROUNDS)]
        return [
            worst_of(f"client of {self.model} leaves while it loads", loading, _BOUND_S),
            worst_of("  in the queue", queued, _BOUND_S),
            worst_of("  while answering", answering, _BOUND_S),
        ]

    def reading(self) -> list[Figure]:
        """The client leaves while the engine reads a long prompt: with the batch size of the first
        load, and with that of the next load, which uses the measured speed of the model."""
        with self.server.client() as api:
            read_s = self._read_whole_prompt()
            first = self._reading_figure(api, "first load", read_s)
            self._unload(api)
            self._load(api)
            return [first, self._reading_figure(api, "next load", self._read_whole_prompt())]

    def _reading_figure(self, api: httpx.Client, what: str, read_s: float) -> Figure:
        """Leave at moments spread over the time that reading the prompt takes."""
        [instance] = api.get("/api/instances").json()["instances"]
        with self._engine() as engine:
            took = [
                self._while_reading(engine, read_s * (0.1 + 0.7 * each / _ROUNDS))
                for each in range(_ROUNDS)
            ]
        batch = instance["batch_size"]
        name = f"  reading {_PROMPT_TOKENS} tokens, {what}: batch {batch}"
        return worst_of(name, took, 2 * batch * read_s / _PROMPT_TOKENS + _NOTICED_S)

    def _while_loading(self, api: httpx.Client) -> float:
        """Seconds until the server drops the request; the engine must not begin it afterwards."""
        if _health(api)["models"]:
            self._unload(api)
        client = self._ask("Hello")
        wait_until(lambda: bool(_health(api)["models"]), 10, "the load begins")
        since = client.leave()
        took = _until(lambda: _is_idle(api), since)
        self._load(api)
        with self._engine() as engine:
            assert not slots_busy(engine), "the engine began a request after its client had left"
        return took

    def _while_queued(self, api: httpx.Client, engine: httpx.Client) -> float:
        ahead = self._ask("Hello")
        ahead.wait_for_token()
        client = self._ask("Hello")
        wait_until(lambda: _health(api)["queued"] == 1, 10, "the request is queued")
        took = _until(lambda: _health(api)["queued"] == 0, client.leave())
        _until(lambda: not slots_busy(engine), ahead.leave())
        return took

    def _while_answering(self, engine: httpx.Client) -> float:
        client = self._ask("Hello")
        client.wait_for_token()
        return _until(lambda: not slots_busy(engine), client.leave())

    def _while_reading(self, engine: httpx.Client, after_s: float) -> float:
        client = self._ask(self._long_prompt())
        wait_until(lambda: slots_busy(engine) == 1, 30, "the engine reads the prompt")
        time.sleep(after_s)
        assert not client.has_token(), "the engine had read the prompt before the client left"
        return _until(lambda: not slots_busy(engine), client.leave())

    def _read_whole_prompt(self) -> float:
        """Seconds for a whole prompt; from this, the server learns the speed of the model."""
        started = time.monotonic()
        with self.server.client(timeout=_LONGEST_WAIT_S) as api:
            body = self._body(self._long_prompt(), max_tokens=1) | {"stream": False}
            answer = api.post("/api/generate", json=body).raise_for_status().json()
        read = answer["usage"]["prompt_tokens"]
        assert abs(read - _PROMPT_TOKENS) < 20, f"the prompt has {read} tokens"
        return time.monotonic() - started

    def _long_prompt(self) -> str:
        """A new prompt each time, with another first word, so that no part of it is cached."""
        self.prompts += 1
        return f"{'ABCDEFGHIJKLMNOPQRSTUVWXYZ'[self.prompts]}" + " hello" * _PROMPT_TOKENS

    def _ask(self, prompt: str) -> Leaver:
        """A request whose answer continues until its client leaves, or the context is full."""
        body = self._body(prompt, max_tokens=2000)
        if self.end_token is not None:
            body["options"]["logit_bias"] = [[self.end_token, False]]
        return Leaver(self.server.url, "/api/generate", json.dumps(body).encode())

    def _body(self, prompt: str, max_tokens: int) -> dict[str, Any]:
        return {"model": self.model, "prompt": prompt, "options": {"max_tokens": max_tokens}}

    def _load(self, api: httpx.Client) -> None:
        api.post(f"/api/models/{self.model}/load").raise_for_status()

    def _unload(self, api: httpx.Client) -> None:
        api.post(f"/api/models/{self.model}/unload?force=true").raise_for_status()

    @contextmanager
    def _engine(self) -> Iterator[httpx.Client]:
        with engine_client(self.server.engine_socket()) as client:
            yield client


def _end_token(engine: httpx.Client) -> int:
    """The token that would end an answer early."""
    text = engine.get("/props").raise_for_status().json()["eos_token"]
    body = {"content": text, "parse_special": True}
    tokens = engine.post("/tokenize", json=body).raise_for_status().json()["tokens"]
    return int(tokens[-1])


def _health(api: httpx.Client) -> Any:
    return api.get("/health").raise_for_status().json()


def _is_idle(api: httpx.Client) -> bool:
    health = _health(api)
    return bool(health["active"] == 0 and health["queued"] == 0)


def _until(condition: Callable[[], bool], since: float) -> float:
    """Seconds from `since` until `condition` holds."""
    wait_until(condition, _LONGEST_WAIT_S, "the slot is free")
    return time.monotonic() - since
