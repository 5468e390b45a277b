"""The way of every dialect's messages to an engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from myllm.api.http.streaming import DeferredResponse, Stream
from myllm.api.shared.dependencies import Services
from myllm.gateway.conversation.messages import Messages, RawMessages, is_long
from myllm.gateway.conversation.normalize import normalized
from myllm.gateway.scheduling.tickets import RequestInfo

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R", bound=Stream | DeferredResponse)


async def prepared(
    services: Services, info: RequestInfo, model: str, messages: RawMessages
) -> Messages:
    """Return `messages`, in OpenAI's form as clients write it, fit for the engine of `model`.

    `info.ignored` collects what is left out. Raises InvalidRequest for what no repair can save;
    ModelNotFound and InvalidModel.
    """
    ignored = info.ignored
    normal = await aside(is_long(messages), normalized, messages, ignored)
    return await services.media.checked(model, normal, ignored)


async def aside(is_much: bool, work: Callable[P, T], *args: P.args, **more: P.kwargs) -> T:
    """Return what `work` returns, which is done in a thread if it is much."""
    if is_much:
        return await asyncio.to_thread(work, *args, **more)
    return work(*args, **more)


def naming(info: RequestInfo, response: R) -> R:
    """Return `response`, whose header names what was left out by the time it is sent."""
    response.late_headers = info.ignored.headers
    return response
