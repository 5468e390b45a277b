"""Completes the OpenAPI document: path parameters, and each route's errors in its dialect."""

from __future__ import annotations

import asyncio
from collections.abc import Set
from typing import Any, Final

import orjson
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from myllm.api.dialects import Envelope, dialect_of

PATH: Final = "/openapi.json"
_ALWAYS: Final = {
    400: "The request is wrong; the error says what about it",
    403: "The Host or Origin header is not allowed",
    404: "There is no such model, session or answer",
    500: "The engine, the model's files or the store failed; the error says the cause",
    503: "Not now: try again after `Retry-After` seconds",
}
_WITH_BODY: Final = {
    409: "The model or session is in use",
    413: "The body is too large",
    429: "Too many requests wait for this model: try again after `Retry-After` seconds",
    502: "A download from another server failed",
    507: "The model does not fit into the memory budget",
}
_WITH_KEYS: Final = {401: "The key is missing or not known"}
_KEY_SCHEMES: Final = {
    "HTTPBearer": {"type": "http", "scheme": "bearer"},
    "APIKeyHeader": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
}
_PARAMETERS: Final = {
    "name": "A model's name or alias.",
    "model": "A model's name or alias; without it, the only loaded one that can is meant.",
    "session_id": "The session's id.",
    "message": "The message's id, from GET /api/sessions/{session_id}.",
    "request_id": "The request's id, from GET /api/requests or the header X-Request-ID.",
    "response_id": "The answer's id.",
}
_TEXT: Final = {"type": "string"}
_SENTENCE: Final = {"type": "string", "description": "What is wrong, and what to do about it."}
_KIND: Final = {"type": "string", "description": "The kind of error."}
_OPTIONAL: Final = {
    "anyOf": [_TEXT, {"type": "null"}],
    "description": "As OpenAI's API has it, or null.",
}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _described(**properties: Any) -> dict[str, Any]:
    return _object(**properties) | {"description": "The error."}


_ERRORS: Final[dict[Envelope, tuple[str, dict[str, Any]]]] = {
    "detail": ("Error", _object(detail=_SENTENCE)),
    "openai": (
        "OpenAIError",
        _object(error=_described(message=_SENTENCE, type=_KIND, param=_OPTIONAL, code=_OPTIONAL)),
    ),
    "anthropic": (
        "AnthropicError",
        _object(type=_KIND, error=_described(type=_KIND, message=_SENTENCE)),
    ),
    "llamacpp": (
        "LlamaCppError",
        _object(
            error=_described(
                code={"type": "integer", "description": "The status."},
                message=_SENTENCE,
                type=_KIND,
            )
        ),
    ),
    "ollama": ("OllamaError", _object(error=_SENTENCE)),
}
# FastAPI's form of a validation error, which no route of this API uses.
_NOT_OURS: Final = ("HTTPValidationError", "ValidationError")


def install(app: FastAPI, open_paths: Set[str]) -> None:
    """Let `app` serve its OpenAPI document with every error that its routes can return.

    All routes but those at `open_paths` need a key, if the server has any.
    """
    openapi = app.openapi  # which caches the document until routes are added
    making = asyncio.Lock()

    def described() -> dict[str, Any]:
        return _completed(openapi(), open_paths)

    async def answer(_: Request) -> Response:
        """In a thread, since the first time takes some tenths of a second."""
        async with making:
            content = await asyncio.to_thread(lambda: orjson.dumps(app.openapi()))
        return Response(content, media_type="application/json")

    app.openapi = described  # type: ignore[method-assign]  # FastAPI's documented way
    app.add_api_route(PATH, answer, include_in_schema=False)


def _completed(schema: dict[str, Any], open_paths: Set[str]) -> dict[str, Any]:
    """Add to `schema` what it lacks; a completed one stays as it is."""
    schemas = schema["components"]["schemas"]
    for name in _NOT_OURS:
        schemas.pop(name, None)
    schemas.update(_ERRORS.values())
    schema["components"]["securitySchemes"] = _KEY_SCHEMES
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] in _PARAMETERS:
                    parameter.setdefault("description", _PARAMETERS[parameter["name"]])
            errors = _ALWAYS | (_WITH_BODY if method != "get" else {})
            if path not in open_paths:
                errors |= _WITH_KEYS
                operation["security"] = [{name: []} for name in _KEY_SCHEMES]
            operation["responses"].pop("422", None)
            for status, reason in sorted(errors.items()):
                operation["responses"].setdefault(str(status), _answer(path, reason))
    return schema


def _answer(path: str, reason: str) -> dict[str, Any]:
    name = _ERRORS[dialect_of(path).envelope][0]
    form = {"schema": {"$ref": f"#/components/schemas/{name}"}}
    return {"description": reason, "content": {"application/json": form}}
