"""How a request reaches an engine: one answer or a stream of events, and its errors as ours.

No header of a client is forwarded: some headers would keep a generation alive after its client
has left.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import closing, suppress
from typing import Any

import httpx
import orjson

from myllm.errors import EngineError, InvalidRequest, MyLLMError, Unavailable
from myllm.gateway.engine_io.sse import Framing, split_at_error
from myllm.gateway.prompt.too_long import too_long
from myllm.json_output import dumped
from myllm.supervisor.engine_client import EngineAnswer
from myllm.supervisor.instance import Instance

# The supervisor finds a hanging engine long before this. It bounds the wait for an engine that
# works without end.
_SILENCE_S = 600.0
_DEATH_NOTICE_S = 2.0
# How long a killed process may take to be gone; a device's driver can hold it in the kernel.
_KILL_S = 15.0
# The second status means that the model cannot do what was requested.
_REFUSALS = (400, 501)
# What the engine writes when a template raises an exception or fails, with status 400 or 500.
_TEMPLATE_REFUSAL = re.compile(
    r"While executing \w+ at line .*Error: (?:Jinja Exception: )?(.*)", re.S
)


async def request(
    instance: Instance, path: str, body: dict[str, Any] | None, timeout_s: float = _SILENCE_S
) -> EngineAnswer:
    """Return the answer, of any status, to a POST of `body`, or to a GET if it is None."""
    try:
        if body is None:
            return await instance.client.get(path, timeout_s)
        return await instance.client.post(path, await _json(body), timeout_s)
    except httpx.TransportError as failure:
        raise await _lost(instance, failure) from failure


async def fetch(
    instance: Instance, path: str, body: dict[str, Any] | None = None, timeout_s: float = _SILENCE_S
) -> bytes:
    """Return the body of a successful answer to a POST of `body`, or to a GET if it is None.

    Raises the error that any other answer means.
    """
    answer = await request(instance, path, body, timeout_s)
    raise_for(instance, answer)
    return answer.body


async def stream(
    instance: Instance, path: str, body: dict[str, Any]
) -> AsyncGenerator[bytes, None]:
    """Yield the engine's event stream in blocks of one or more whole events.

    The engine always streams, even when the client wants one answer: only on a stream does it
    notice at once that its reader has left. Its pings are switched off, because it also sends them
    when it makes no progress; so every block is a sign of life. Leaving the iteration closes the
    connection; its end is the end of the answer. Raises the engine's errors, also those that come
    as events, and EngineError for anything that is not a stream of events.
    """
    try:
        content = await _json(body | {"stream": True, "sse_ping_interval": -1})
        with closing(await instance.client.stream(path, content, _SILENCE_S)) as answer:
            if answer.status != 200:
                raise_for(instance, EngineAnswer(answer.status, await answer.rest()))
            framing = Framing()
            while chunk := await answer.read():
                block = framing.whole(chunk)
                if not block:
                    continue
                instance.sign_of_life()
                block, error = split_at_error(block)
                if block:
                    yield block
                if error is not None:
                    raise _translate(instance, 500, error)
            if framing.is_open():
                raise EngineError("The engine ended its answer in the middle of an event")
    except httpx.TransportError as failure:
        raise await _lost(instance, failure) from failure


def raise_for(instance: Instance, answer: EngineAnswer) -> None:
    """Raise what an error answer means; return if it is not an error."""
    if answer.status == 200:
        return
    try:
        error = orjson.loads(answer.body)["error"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise EngineError(f"The engine answered with status {answer.status}") from None
    raise _translate(instance, answer.status, error)


def error_text(answer: EngineAnswer) -> str:
    """Return the engine's own words in an error answer."""
    try:
        return str(orjson.loads(answer.body)["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return f"status {answer.status}"


async def _json(body: dict[str, Any]) -> bytes:
    """Raises InvalidRequest for a lone surrogate, which JSON can express but UTF-8 cannot."""
    try:
        return await dumped(body)
    except TypeError as failure:
        raise InvalidRequest(f"The request cannot be passed on: {failure}") from None


def _translate(instance: Instance, status: int, error: dict[str, Any]) -> MyLLMError:
    message = str(error.get("message", "no reason given"))
    if error.get("type") == "exceed_context_size_error":
        return too_long(instance.spec, int(error["n_prompt_tokens"]))
    if refusal := _TEMPLATE_REFUSAL.search(message):
        return InvalidRequest(f"The chat template refused these messages: {refusal[1]}")
    if error.get("code", status) in _REFUSALS:
        return InvalidRequest(f"The engine refused the request: {message}")
    return EngineError(f"The engine failed: {message}")


async def _lost(instance: Instance, failure: httpx.TransportError) -> MyLLMError:
    """Return why the connection broke. Usually the engine has died, and its error comes at once.

    An engine that lives on and yet breaks connections is of no use to any request, so it is ended.
    If it is only silent, the supervisor finds out whether it hangs.
    """
    if isinstance(failure, httpx.ReadTimeout) and not instance.is_over():
        return EngineError(f"The engine of model '{instance.spec.key}' is silent: {failure}")
    try:
        await asyncio.wait_for(instance.ended.wait(), _DEATH_NOTICE_S)
    except TimeoutError:
        instance.declare_dead("unreachable", f"broke a connection: {failure}")
        with suppress(TimeoutError):
            await asyncio.wait_for(instance.ended.wait(), _KILL_S)
    return instance.error or Unavailable(
        f"The engine of model '{instance.spec.key}' was stopped before the answer ended: the "
        "server is shutting down, or the model was unloaded by force"
    )
