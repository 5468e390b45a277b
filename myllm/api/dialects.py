"""The dialects of the API: the paths of each, its routers, and the form of its errors.

The list names modules instead of importing them. The layers below the dialects read it too, and
the dialects of other servers are imported only when the first client speaks one of them: their
schemas take as long to import as half of the rest of the server, and some megabytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Final, Literal, cast

from fastapi import APIRouter

Envelope = Literal["detail", "openai", "anthropic", "llamacpp", "ollama"]
"""The form of an error's body; `api/errors/envelopes.py` defines each."""


@dataclass(frozen=True)
class Dialect:
    """One API that clients speak.

    `name` is its folder and `modules` are the modules in there that have a `router`, in the order
    of the API's description. All its paths begin with one of `prefixes`.
    """

    name: str
    prefixes: tuple[str, ...]
    modules: tuple[str, ...]
    envelope: Envelope
    at_start: bool = False

    def routers(self) -> tuple[APIRouter, ...]:
        """Import the dialect and return its routers."""
        modules = (import_module(f"myllm.api.{self.name}.{module}") for module in self.modules)
        return tuple(cast(APIRouter, module.router) for module in modules)


DIALECTS: Final = (
    Dialect(
        "native",
        prefixes=("",),  # the paths of no other dialect, such as those that do not exist
        modules=(
            *("generation", "sessions", "models", "instances", "keys"),
            *("requests", "events", "history", "logs", "usage", "metrics"),
        ),
        envelope="detail",
        at_start=True,
    ),
    Dialect(
        "openai",
        prefixes=("/v1/",),
        modules=("completions", "audio", "vectors", "responses"),
        envelope="openai",
    ),
    Dialect("anthropic", prefixes=("/v1/messages",), modules=("routes",), envelope="anthropic"),
    Dialect(
        "llamacpp",
        prefixes=(
            *("/chat/completions", "/completion", "/completions", "/embedding", "/embeddings"),
            *("/rerank", "/reranking", "/tokenize", "/detokenize", "/apply-template", "/infill"),
            *("/models", "/props", "/slots", "/upstream/"),
        ),
        modules=("routes", "engine_queries"),
        envelope="llamacpp",
    ),
    Dialect("ollama", prefixes=("/ollama",), modules=("routes", "models"), envelope="ollama"),
)
# The longest prefixes first, since those of Anthropic's paths begin with OpenAI's. The prefixes are
# next to their dialect because every request looks for its own here.
_BY_PREFIX: Final = sorted(
    ((each.prefixes, each) for each in DIALECTS),
    key=lambda entry: max(map(len, entry[0])),
    reverse=True,
)


def dialect_of(path: str) -> Dialect:
    """Return the dialect that is spoken at `path`."""
    for prefixes, dialect in _BY_PREFIX:
        if path.startswith(prefixes):
            return dialect
    raise AssertionError("the native dialect has every path that no other has")
