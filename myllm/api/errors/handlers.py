"""Turns exceptions into answers: a status, and one sentence in the dialect's envelope."""

from __future__ import annotations

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from myllm import errors
from myllm.api.dialects import dialect_of
from myllm.api.errors.envelopes import envelope, extra_headers
from myllm.api.errors.validation import OptionFields, explain
from myllm.gateway.request_record import current

_log = structlog.get_logger(__name__)

# nginx's status for a client that closed its connection.
_CLIENT_LEFT = 499

# An error has the status of its nearest ancestor in this table.
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
    errors.KeyLimitReached: 429,
    errors.NoRoom: 507,
}


def status_of(error: errors.MyLLMError) -> int:
    """Return the HTTP status of an error."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def error_response(error: errors.MyLLMError, path: str, param: str | None = None) -> JSONResponse:
    """Return the answer for `error` to a request of `path`; `param` is the field that is wrong.

    The record of the request that this task answers gets the error, unless it has one.
    """
    if (record := current()) is not None:
        record.error = record.error or error
    form, status = dialect_of(path).envelope, status_of(error)
    headers = dict(extra_headers(form, error))
    if isinstance(error, errors.KeyRefused):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, errors.Unavailable):
        headers["Retry-After"] = str(error.retry_after_s)
        if error.queue_position:
            headers["X-Queue-Position"] = str(error.queue_position)
    return JSONResponse(envelope(form, status, error.detail, error, param), status, headers)


def install(app: FastAPI, options: OptionFields) -> None:
    """Let `app` answer every exception in this form.

    `options` are the fields of the native dialect's options, whose bounds errors quote.
    """

    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        content_type = request.headers.get("content-type", "")
        sentence, param = explain(error.errors(), content_type, options)
        return error_response(errors.InvalidRequest(sentence), request.url.path, param)

    app.exception_handler(errors.MyLLMError)(_own_error)
    app.exception_handler(RequestValidationError)(invalid)
    app.exception_handler(UnicodeEncodeError)(_half_a_character)
    app.exception_handler(HTTPException)(_http_error)
    app.exception_handler(ClientDisconnect)(_client_left)
    app.exception_handler(Exception)(_unexpected)


async def _own_error(request: Request, error: errors.MyLLMError) -> JSONResponse:
    if status_of(error) >= 500:
        _log.warning("request failed", error=error.detail)
    return error_response(error, request.url.path)


async def _half_a_character(request: Request, error: UnicodeEncodeError) -> JSONResponse:
    """JSON can spell one half of a surrogate pair, which is not a character."""
    refused = errors.InvalidRequest("The texts of a request must be valid Unicode")
    return error_response(refused, request.url.path)


async def _http_error(request: Request, error: HTTPException) -> JSONResponse:
    path, detail = request.url.path, str(error.detail)
    if error.status_code == 404:
        detail = f"No such route: {request.method} {path}; see /docs"
    elif error.status_code == 405:
        detail = f"{path} does not take {request.method}; see /docs"
    body = envelope(dialect_of(path).envelope, error.status_code, detail)
    return JSONResponse(body, error.status_code, error.headers)


async def _client_left(request: Request, error: ClientDisconnect) -> Response:
    """The client left while it sent its body: this is for the log, which gets no traceback."""
    return Response(status_code=_CLIENT_LEFT)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    detail = "Internal error; the server's log has the details"
    return JSONResponse(envelope(dialect_of(request.url.path).envelope, 500, detail), 500)
