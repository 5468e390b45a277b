"""Exceptions to answers, in one place: a status, and one sentence in the dialect's envelope."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from myllm import errors
from myllm.api.errors.envelopes import dialect_of, envelope, extra_headers
from myllm.api.native.schemas import Options

_log = structlog.get_logger(__name__)

# As nginx has it.
_CLIENT_LEFT = 499

# The nearest class in an error's ancestry counts.
STATUS: dict[type[errors.MyLLMError], int] = {
    errors.InvalidRequest: 400,
    errors.KeyRefused: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.BodyTooLarge: 413,
    errors.InvalidModel: 500,
    errors.InvalidSettings: 500,
    errors.InvalidKeysFile: 500,
    errors.StoreFailed: 500,
    errors.EngineError: 500,
    errors.PullFailed: 502,
    errors.ServeFailed: 503,
    errors.Unavailable: 503,
    errors.QueueFull: 429,
    errors.KeyPaused: 429,
    errors.NoRoom: 507,
}


def status_of(error: errors.MyLLMError) -> int:
    """The HTTP status of an error."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def error_response(error: errors.MyLLMError, path: str, param: str | None = None) -> JSONResponse:
    """The answer that tells `error` to who has asked for `path`."""
    dialect, status = dialect_of(path), status_of(error)
    headers = dict(extra_headers(dialect, error))
    if isinstance(error, errors.KeyRefused):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, errors.Unavailable):
        headers["Retry-After"] = str(error.retry_after_s)
        if error.queue_position:
            headers["X-Queue-Position"] = str(error.queue_position)
    return JSONResponse(envelope(dialect, status, error.detail, error, param), status, headers)


def install(app: FastAPI) -> None:
    """Let `app` answer every exception in this form."""

    @app.exception_handler(errors.MyLLMError)
    async def _ours(request: Request, error: errors.MyLLMError) -> JSONResponse:
        if status_of(error) >= 500:
            _log.warning("request failed", error=error.detail)
        return error_response(error, request.url.path)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        told = _most_telling(error.errors())
        location = _location(told)
        param = _path(location) if location and isinstance(location[0], str) else None
        refused = errors.InvalidRequest(_sentence(request, told))
        return error_response(refused, request.url.path, param)

    @app.exception_handler(UnicodeEncodeError)
    async def _half_a_character(request: Request, error: UnicodeEncodeError) -> JSONResponse:
        """JSON can spell the half of a surrogate pair, which is no character."""
        refused = errors.InvalidRequest("The texts of a request must be valid Unicode")
        return error_response(refused, request.url.path)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        detail = str(error.detail)
        if error.status_code == 404:
            detail = f"No such route: {request.method} {request.url.path}; see /docs"
        elif error.status_code == 405:
            detail = f"{request.url.path} does not take {request.method}; see /docs"
        body = envelope(dialect_of(request.url.path), error.status_code, detail)
        return JSONResponse(body, error.status_code, error.headers)

    @app.exception_handler(ClientDisconnect)
    async def _left(request: Request, error: ClientDisconnect) -> Response:
        """Within its body: nobody reads this; the log has a status, and no traceback."""
        return Response(status_code=_CLIENT_LEFT)

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> JSONResponse:
        detail = "Internal error; the server's log has the details"
        return JSONResponse(envelope(dialect_of(request.url.path), 500, detail), 500)


def _most_telling(found: Sequence[Any]) -> Any:
    """The first error; but what is one of several forms, and too long, is no error of form."""
    return next((error for error in found if error["type"] in _TOO_LONG), found[0])


def _location(error: Any) -> list[str | int]:
    """Where it is in the body, without the names that pydantic has for the forms of a field."""
    parts = [part for part in error["loc"] if part != "body"]
    first, rest = parts[:1], parts[1:]
    return first + [part for part in rest if isinstance(part, int) or not _FORM.search(part)]


def _sentence(request: Request, error: Any) -> str:
    """What is wrong with a body, as one sentence."""
    kind, location = error["type"], _location(error)
    if kind == "value_error" and not location:
        return str(error["ctx"]["error"])
    if not location:
        content_type = request.headers.get("content-type", "")
        if not content_type.startswith("application/json"):
            return f"Content-Type must be application/json, not '{content_type or 'missing'}'"
        return "The body must be a JSON object"
    name = _path(location)
    if kind == "extra_forbidden":
        known = sorted(Options.model_fields)
        # Looking for neighbours takes a time that grows with the square of the length.
        near = difflib.get_close_matches(str(location[-1])[:64], known, n=1, cutoff=0.0)[0]
        return f"Unknown option '{location[-1]}'; did you mean '{near}'?"
    return f"{name} {rule(str(location[-1]), error)}"


def _path(location: Sequence[str | int]) -> str:
    """`messages[0].role`; options go by their bare name, as the documentation shows."""
    parts = list(location)
    if parts[0] == "options" and len(parts) > 1:
        parts = [parts[1]]
    text = str(parts[0])
    for part in parts[1:]:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text


_RULES = {
    "missing": "is required",
    "string_type": "must be a string",
    "string_unicode": "must be valid Unicode",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is too large a number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "list_type": "must be a list",
    "model_attributes_type": "must be an object",
    "model_type": "must be an object",
    "dict_type": "must be an object",
}
_FORM = re.compile(r"\[|^(constrained-)?(str|int|float|bool)$")
_TOO_LONG = {"too_long": "entries", "string_too_long": "characters"}
_OUT_OF_RANGE = {"greater_than_equal", "less_than_equal", "finite_number", "int_parsing_size"}


def rule(name: str, error: Any) -> str:
    """What a value must be; ranges are told with both ends."""
    if error["type"] in _OUT_OF_RANGE and name in Options.model_fields:
        return _range(name)
    if error["type"] == "literal_error":
        return f"must be one of {error['ctx']['expected']}"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if (what := _TOO_LONG.get(error["type"])) is not None:
        return f"must have {error['ctx']['max_length']} {what} at most"
    return _RULES.get(error["type"]) or f"is wrong: {error['msg']}"


def _range(name: str) -> str:
    bounds: dict[str, Any] = {}
    for constraint in Options.model_fields[name].metadata:
        for end in ("ge", "le"):
            bounds[end] = getattr(constraint, end, bounds.get(end))
    if bounds["le"] is None:
        return f"must be {bounds['ge']} or more"
    return f"must be between {bounds['ge']} and {bounds['le']}"
