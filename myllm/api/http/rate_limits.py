"""The limits of keys, where requests come in and answers go out."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Iterable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
_PARTS: Final = ("limit", "remaining", "reset")
_OPENAI: Final = {
    of: [f"x-ratelimit-{part}-{of}".encode() for part in _PARTS] for of in ("requests", "tokens")
}
_ANTHROPIC: Final = {
    of: [f"anthropic-ratelimit-{of}-{part}".encode() for part in _PARTS] for of in _OPENAI
}
HEADERS: Final = [name.decode() for names in _OPENAI.values() for name in names]
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
                told = _headers(self._limits.left(key), record.dialect == "anthropic")
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


def _headers(left: Iterable[Left], for_anthropic: bool) -> list[tuple[bytes, bytes]]:
    """Return headers for what is left of each limit, and for Anthropic's clients theirs as well."""
    headers = []
    for what, most, remaining, reset_s in left:
        limit, remains = b"%d" % most, b"%d" % remaining
        names = _OPENAI[what]
        reset = b"%dm%ds" % divmod(reset_s, 60) if reset_s >= 60 else b"%ds" % reset_s
        headers += [(names[0], limit), (names[1], remains), (names[2], reset)]
        if for_anthropic:
            names, at = _ANTHROPIC[what], time.gmtime(time.time() + reset_s)
            reset = time.strftime("%Y-%m-%dT%H:%M:%SZ", at).encode()
            headers += [(names[0], limit), (names[1], remains), (names[2], reset)]
    return headers
