"""The limits of keys, where requests come in and answers go out."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Iterator
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from myllm.api.dialects import dialect_of
from myllm.api.errors.handlers import error_response
from myllm.errors import KeyLimitReached
from myllm.gateway.key_limits.key_limits import KeyLimits, Left, is_limited
from myllm.gateway.request_record import current
from myllm.sessions.keys import Key

_ASKING: Final = frozenset(
    {
        *("/api/generate", "/api/chat", "/api/embeddings"),
        *("/v1/chat/completions", "/v1/chat/completions/input_tokens", "/v1/completions"),
        *("/v1/responses", "/v1/embeddings", "/v1/rerank", "/v1/reranking"),
        *("/v1/audio/transcriptions", "/v1/messages", "/v1/messages/count_tokens"),
        *("/chat/completions", "/chat/completions/input_tokens", "/completion", "/completions"),
        *("/infill", "/embedding", "/embeddings", "/rerank", "/reranking"),
        *("/tokenize", "/detokenize", "/apply-template"),
        *("/ollama/api/generate", "/ollama/api/chat"),
        *("/ollama/api/embed", "/ollama/api/embeddings"),
    }
)
HEADERS: Final = tuple(
    f"x-ratelimit-{what}-{of}"
    for of in ("requests", "tokens")
    for what in ("limit", "remaining", "reset")
)
"""What answers to a limited key say of its limits, in OpenAI's form."""


def asks_a_model(method: str, path: str) -> bool:
    """Return whether a request counts: whether it asks a model something.

    Lists, health, sessions, keys and whatever else the server answers by itself do not count.
    """
    return method == "POST" and (path in _ASKING or path.startswith("/upstream/"))


class RateLimits:
    """Refuses requests beyond the limits of their keys, and tells clients what is left of those."""

    def __init__(self, app: ASGIApp, limits: KeyLimits) -> None:
        self._app = app
        self._limits = limits

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http":
            key = scope["state"]["client"].key
            if key is not None and is_limited(key):
                return self._limited(key, scope, receive, send)
        return self._app(scope, receive, send)

    async def _limited(self, key: Key, scope: Scope, receive: Receive, send: Send) -> None:
        record, path = current(), scope["path"]
        assert record is not None

        async def send_with_limits(message: Message) -> None:
            if message["type"] == "http.response.start":
                if record.tickets and record.allowance is not None:  # the whole answer is there
                    record.allowance.settle(record.prompt_tokens, record.generated_tokens)
                told = _headers(self._limits.left(key), dialect_of(path).name == "anthropic")
                message["headers"] = [*message["headers"], *told]
            await send(message)

        try:
            allowance = await self._limits.admit(key, asks_a_model(scope["method"], path))
        except KeyLimitReached as refused:
            await error_response(refused, path)(scope, receive, send_with_limits)
            return
        if key.tokens_per_minute is not None:
            record.allowance = allowance
        try:
            await self._app(scope, receive, send_with_limits)
        finally:
            allowance.settle(record.prompt_tokens, record.generated_tokens)
            allowance.end()


def _headers(left: Iterator[Left], for_anthropic: bool) -> Iterator[tuple[bytes, bytes]]:
    """Yield headers for what is left of each limit, and for Anthropic's clients theirs as well."""
    for what, limit, remaining, reset_s in left:
        values = {"limit": str(limit), "remaining": str(remaining)}
        for name, value in (values | {"reset": _duration(reset_s)}).items():
            yield f"x-ratelimit-{name}-{what}".encode(), value.encode()
        if for_anthropic:
            for name, value in (values | {"reset": _time(reset_s)}).items():
                yield f"anthropic-ratelimit-{what}-{name}".encode(), value.encode()


def _duration(seconds: int) -> str:
    """Write a duration as OpenAI does: `59s`, `1m0s`."""
    return f"{seconds // 60}m{seconds % 60}s" if seconds >= 60 else f"{seconds}s"


def _time(in_s: int) -> str:
    """Write the time in so many seconds as Anthropic does."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + in_s))
