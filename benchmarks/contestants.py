"""The contestants of `benchmarks.gateway`, and the requests to each."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.driving import Target, target
from benchmarks.models import micro_models_dir
from benchmarks.peers import litellm_proxy, llama_server, router
from benchmarks.servers import myllm_server
from tests.serving import Serving

SLOTS, MODEL = 16, "micro"
STREAM_TOKENS = 64
# Every token is this word, so that a stream has an event for each and a lost token is detected.
# The word occurs nowhere else in an answer.
_TOKEN, _WORD = 4997, "wonder"
# These arguments differ for each engine.
_OWN_FLAGS = ("--host", "--model", "--alias", "--slot-save-path")


@dataclass(frozen=True)
class Contestant:
    """A server that is ready. `gateway` is None if clients talk to the engine directly; `key` is
    theirs, if they need one."""

    name: str
    url: str
    gateway: psutil.Process | None
    engines: tuple[psutil.Process, ...]
    native: bool = False
    key: str = ""

    def stream(self, tokens: int = STREAM_TOKENS) -> Target:
        """Requests for streams of that many tokens."""
        # The last event of MyLLM's native dialect repeats the whole answer.
        expected, ending = (2 * tokens, '"session_id"') if self.native else (tokens, "[DONE]")
        return self._target(tokens, True, expected, ending)

    def single(self) -> Target:
        """Requests for answers of one token, not streamed."""
        return self._target(1, False, 1, "}")

    def _target(self, tokens: int, stream: bool, expected: int, ending: str) -> Target:
        path = "/api/chat" if self.native else "/v1/chat/completions"
        body = self._body(tokens, stream)
        answer = {"word": _WORD, "expected": expected, "ending": ending}
        return target(self.url, path, body, key=self.key, **answer)

    def _body(self, tokens: int, stream: bool) -> dict[str, Any]:
        """The same work for the engine in both dialects, independent of their defaults.

        The question is always the same, so the engine has almost nothing to read.
        """
        message = {"role": "user", "content": "Hello"}
        body = {"model": MODEL, "stream": stream, "messages": [message]}
        options = {"max_tokens": tokens, "temperature": 0, "logit_bias": {str(_TOKEN): 100}}
        if not self.native:
            return body | options
        return body | {"options": options | {"top_p": 1, "repeat_penalty": 1}}


@contextmanager
def contestants(litellm: str | None, before: Path | None) -> Iterator[list[Contestant]]:
    """All contestants; `litellm` is the program that starts its proxy, `before` another checkout.

    MyLLM comes first, because the others use the flags of its engine. LiteLLM has no engine of its
    own and forwards to the engine of the direct contestant.
    """
    models = micro_models_dir()
    with ExitStack() as running:
        server = running.enter_context(myllm(models))
        flags = engine_flags(server)
        gguf = models / MODEL / f"{MODEL}.gguf"
        bare = running.enter_context(llama_server(flags, gguf, MODEL))
        routing = running.enter_context(router(flags, models, MODEL))
        found = [
            Contestant("direct", bare.url, None, (bare.process,)),
            *in_both_dialects("MyLLM", server),
            Contestant("router", routing.url, routing.process, tuple(routing.process.children())),
        ]
        if before is not None:
            found += in_both_dialects("before", running.enter_context(myllm(models, before)))
        if litellm is not None:
            try:
                proxy = running.enter_context(litellm_proxy(litellm, bare.url, MODEL))
            except (OSError, RuntimeError) as failure:
                print(f"LiteLLM is left out: {failure}", file=sys.stderr)
            else:
                found.append(Contestant("LiteLLM", proxy.url, proxy.process, (bare.process,)))
        yield found


def in_both_dialects(name: str, server: Serving, key: str = "") -> list[Contestant]:
    """The contestants that speak OpenAI's API and MyLLM's own with `server`."""
    gateway, engines = psutil.Process(server.process.pid), tuple(server.engines())
    return [
        Contestant(f"{name} /v1", server.url, gateway, engines, key=key),
        Contestant(f"{name} /api", server.url, gateway, engines, native=True, key=key),
    ]


@contextmanager
def myllm(
    models_dir: Path, checkout: Path | None = None, slots: int = SLOTS, admin_key: str | None = None
) -> Iterator[Serving]:
    """MyLLM with all models loaded, and no idle timeout."""
    sizes = {"slots": slots, "threads": 1, "context_size": 1024, "queue_size": 1000}
    given = {"models_dir": models_dir, "keep_alive": -1, "admin_key": admin_key, **sizes}
    with myllm_server(checkout, **given) as server:
        with server.client(120) as api:
            if admin_key is not None:
                api.headers["Authorization"] = f"Bearer {admin_key}"
            for model in sorted(models_dir.iterdir()):
                api.post(f"/api/models/{model.name}/load").raise_for_status()
            api.get("/v1/models").raise_for_status()  # loads the other dialects
        yield server


def engine_flags(server: Serving) -> list[str]:
    """The command line of MyLLM's engine, without the arguments specific to that engine."""
    [engine] = server.engines()
    flags = engine.cmdline()
    for name in _OWN_FLAGS:
        if name in flags:
            at = flags.index(name)
            del flags[at : at + 2]
    return flags
