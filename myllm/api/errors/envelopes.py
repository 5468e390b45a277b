"""How each dialect tells an error; the path of a request says which dialect it speaks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from myllm.errors import ModelNotFound, MyLLMError, PromptTooLong
from myllm.limits import ERROR_CHARS

Dialect = Literal["myllm", "openai", "anthropic", "ollama"]

# llama.cpp's own clients know these paths, and OpenAI's errors.
_LLAMA_CPP: Final = (
    "/chat/completions", "/completion", "/completions", "/embedding", "/embeddings", "/rerank",
    "/reranking", "/tokenize", "/detokenize", "/apply-template", "/infill", "/props", "/upstream/",
)  # fmt: skip
_OPENAI_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}
_OPENAI_CODES: Final = {401: "invalid_api_key", 429: "rate_limit_exceeded"}
_ANTHROPIC_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def dialect_of(path: str) -> Dialect:
    """The dialect that is spoken at `path`."""
    if path.startswith("/v1/messages"):
        return "anthropic"
    if path.startswith("/v1/") or path.startswith(_LLAMA_CPP):
        return "openai"
    return "ollama" if path.startswith("/ollama") else "myllm"


def envelope(
    dialect: Dialect,
    status: int,
    detail: str,
    error: MyLLMError | None = None,
    param: str | None = None,
) -> dict[str, Any]:
    """The body of an error answer; `param` is the field that is wrong.

    What repeats a long input is cut.
    """
    detail, param = detail[:ERROR_CHARS], param and param[:ERROR_CHARS]
    match dialect:
        case "openai":
            return {"error": _openai(status, detail, error, param)}
        case "anthropic":
            fallback = "invalid_request_error" if status < 500 else "api_error"
            kind = _ANTHROPIC_TYPES.get(status, fallback)
            return {"type": "error", "error": {"type": kind, "message": detail}}
        case "ollama":
            return {"error": detail}
        case "myllm":
            return {"detail": detail}


def extra_headers(dialect: Dialect, error: MyLLMError) -> Mapping[str, str]:
    """What tells OpenAI's and Anthropic's own clients whether to try again by themselves."""
    if dialect not in ("openai", "anthropic"):
        return {}
    return {"x-should-retry": "true" if error.retryable else "false"}


def _openai(
    status: int, detail: str, error: MyLLMError | None, param: str | None
) -> dict[str, Any]:
    fallback = "invalid_request_error" if status < 500 else "server_error"
    code = _OPENAI_CODES.get(status)
    if isinstance(error, ModelNotFound):
        code = "model_not_found"
    elif isinstance(error, PromptTooLong):
        code = "context_length_exceeded"
        # OpenAI's words, by which clients such as LiteLLM know this error.
        detail += f"; this model's maximum context length is {error.context_size} tokens"
    kind = _OPENAI_TYPES.get(status, fallback)
    return {"message": detail, "type": kind, "param": param, "code": code}
