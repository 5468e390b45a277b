"""The form of an error's body in each dialect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from myllm.api.dialects import Envelope
from myllm.errors import ModelNotFound, MyLLMError, PromptTooLong
from myllm.limits import ERROR_CHARS

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
_LLAMACPP_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    501: "not_supported_error",
    503: "unavailable_error",
}


def envelope(
    form: Envelope,
    status: int,
    detail: str,
    error: MyLLMError | None = None,
    param: str | None = None,
) -> dict[str, Any]:
    """Return the body of an error answer; `param` is the field that is wrong.

    A detail that repeats a long input is cut.
    """
    detail, param = detail[:ERROR_CHARS], param and param[:ERROR_CHARS]
    match form:
        case "openai":
            return {"error": _openai(status, detail, error, param)}
        case "anthropic":
            fallback = "invalid_request_error" if status < 500 else "api_error"
            kind = _ANTHROPIC_TYPES.get(status, fallback)
            if isinstance(error, PromptTooLong):
                # Anthropic's wording, by which clients know that they must shorten the history.
                tokens, most = error.prompt_tokens, error.context_size
                detail = f"prompt is too long: {tokens} tokens > {most} maximum"
            return {"type": "error", "error": {"type": kind, "message": detail}}
        case "llamacpp":
            return {"error": _llamacpp(status, detail, error)}
        case "ollama":
            return {"error": detail}
        case "detail":
            return {"detail": detail}


def extra_headers(form: Envelope, error: MyLLMError) -> Mapping[str, str]:
    """Return the headers that tell OpenAI's and Anthropic's own clients whether to retry."""
    if form not in ("openai", "anthropic"):
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
        # OpenAI's wording, by which clients such as LiteLLM recognize this error.
        detail += f"; this model's maximum context length is {error.context_size} tokens"
    kind = _OPENAI_TYPES.get(status, fallback)
    return {"message": detail, "type": kind, "param": param, "code": code}


def _llamacpp(status: int, detail: str, error: MyLLMError | None) -> dict[str, Any]:
    fallback = "invalid_request_error" if status < 500 else "server_error"
    said = {"code": status, "message": detail, "type": _LLAMACPP_TYPES.get(status, fallback)}
    if isinstance(error, PromptTooLong):
        said |= {"type": "exceed_context_size_error"}
        said |= {"n_prompt_tokens": error.prompt_tokens, "n_ctx": error.context_size}
    return said
