"""Sampler values: the request's options, then the model's parameters, then the dialect's defaults.

Every value is sent to the engine, because its own defaults differ and change between versions.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

DEFAULTS: dict[str, Any] = {
    "temperature": 0.7,
    "top_p": 0.9,
    "top_k": 40,
    "min_p": 0.05,
    "max_tokens": 512,
    "stop": [],
    "repeat_penalty": 1.1,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
UNBOUNDED = 2**30
"""The `max_tokens` of an answer that may fill the context."""

# OpenAI's own defaults, under which an answer may fill the context. Ours for the values that
# OpenAI's API does not have.
OPENAI_DEFAULTS: dict[str, Any] = {
    name: value for name, value in DEFAULTS.items() if name != "max_tokens"
} | {"temperature": 1.0, "top_p": 1.0, "repeat_penalty": 1.0}
# The defaults of llama-server's own paths.
LLAMA_CPP_DEFAULTS: dict[str, Any] = OPENAI_DEFAULTS | {"temperature": 0.8, "top_p": 0.95}
# Ollama's own defaults, under which an answer may fill the context, too.
OLLAMA_DEFAULTS: dict[str, Any] = DEFAULTS | {
    "temperature": 0.8,
    "min_p": 0.0,
    "max_tokens": UNBOUNDED,
}
# Names on the engine's `/completion`, where they differ from ours.
_ENGINE_NAMES = {"max_tokens": "n_predict"}


def resolve(
    options: Mapping[str, Any],
    parameters: Mapping[str, Any],
    defaults: Mapping[str, Any] = DEFAULTS,
) -> dict[str, Any]:
    """Return all sampler values of a request.

    Its `options` precede the model's `parameters`, which precede the dialect's `defaults`. There is
    always a seed, so that another engine can replay the answer.
    """
    values = {**defaults, **parameters, **options}
    if values.get("seed", -1) < 0:
        values["seed"] = random.randrange(2**32 - 1)
    return values


def completion_fields(sampling: Mapping[str, Any], json_schema: Any = None) -> dict[str, Any]:
    """Return the fields of the engine's `/completion` for these sampler values, and for an answer
    that must match `json_schema`, if there is one."""
    fields = {_ENGINE_NAMES.get(name, name): value for name, value in sampling.items()}
    return fields if json_schema is None else fields | {"json_schema": json_schema}
