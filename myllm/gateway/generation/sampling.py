"""How tokens are chosen: the request's options over the model's over the defaults.

Every value is sent to the engine, whose own defaults differ and change between versions.
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
# For an answer that may fill the context.
UNBOUNDED = 2**30
# Ours on the left, the engine's on the right; other names are the same.
_ENGINE_NAMES = {"max_tokens": "n_predict"}


# What OpenAI's clients expect; an answer may fill the context. Of what their API does not know,
# our own defaults hold.
OPENAI_DEFAULTS: dict[str, Any] = {
    name: value for name, value in DEFAULTS.items() if name != "max_tokens"
} | {"temperature": 1.0, "top_p": 1.0, "repeat_penalty": 1.0}
# What llama-server does by itself when it is asked on its own paths.
LLAMA_CPP_DEFAULTS: dict[str, Any] = OPENAI_DEFAULTS | {"temperature": 0.8, "top_p": 0.95}

# What Ollama's clients expect; there, an answer may fill the context too.
OLLAMA_DEFAULTS: dict[str, Any] = DEFAULTS | {
    "temperature": 0.8,
    "min_p": 0.0,
    "max_tokens": UNBOUNDED,
}


def resolve(
    options: Mapping[str, Any],
    parameters: Mapping[str, Any],
    defaults: Mapping[str, Any] = DEFAULTS,
) -> dict[str, Any]:
    """All sampler values of a request: its `options`, then the model's `parameters`, then the
    dialect's `defaults`."""
    values = {**defaults, **parameters, **options}
    # A seed of our own, so that the same answer can be asked for again.
    if values.get("seed", -1) < 0:
        values["seed"] = random.randrange(2**32 - 1)
    return values


def engine_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` under the names of the engine's `/completion`."""
    return {_ENGINE_NAMES.get(name, name): value for name, value in values.items()}
