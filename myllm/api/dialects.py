"""The dialects of others, imported together when somebody speaks the first of them.

Their schemas take as long to import as half of the rest of the server, and some megabytes;
neither its start nor a server that only speaks its own dialect should wait or pay for them.
"""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

from myllm.api import (
    anthropic,
    llamacpp,
    ollama,
    ollama_models,
    openai,
    openai_audio,
    openai_vectors,
    responses,
    upstream,
)

ROUTERS: Final[tuple[APIRouter, ...]] = tuple(
    module.router
    for module in (
        openai,
        openai_audio,
        openai_vectors,
        responses,
        anthropic,
        llamacpp,
        upstream,
        ollama,
        ollama_models,
    )
)
