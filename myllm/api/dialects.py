"""The dialects of others, imported together when somebody speaks the first of them.

Their schemas take as long to import as half of the rest of the server, and some megabytes;
neither its start nor a server that only speaks its own dialect should wait or pay for them.
"""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

from myllm.api.anthropic import routes as anthropic
from myllm.api.llamacpp import engine_queries
from myllm.api.llamacpp import routes as llamacpp
from myllm.api.ollama import models as ollama_models
from myllm.api.ollama import routes as ollama
from myllm.api.openai import audio, completions, responses, vectors

ROUTERS: Final[tuple[APIRouter, ...]] = tuple(
    module.router
    for module in (
        completions,
        audio,
        vectors,
        responses,
        anthropic,
        llamacpp,
        engine_queries,
        ollama,
        ollama_models,
    )
)
