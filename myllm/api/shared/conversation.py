"""The way of every dialect's messages to an engine."""

from __future__ import annotations

from typing import TypeVar

from myllm.api.http.streaming import DeferredResponse, Stream
from myllm.api.shared.dependencies import Services
from myllm.gateway.conversation.messages import Messages, RawMessages, is_long
from myllm.gateway.conversation.normalize import normalized
from myllm.gateway.scheduling.tickets import RequestInfo
from myllm.threads import in_thread_if

R = TypeVar("R", bound=Stream | DeferredResponse)


async def prepared(
    services: Services, info: RequestInfo, model: str, messages: RawMessages
) -> Messages:
    """Return `messages`, in OpenAI's form as clients write it, fit for the engine of `model`.

    `info.ignored` collects what is left out. Raises InvalidRequest for what no repair can save;
    ModelNotFound and InvalidModel.
    """
    ignored = info.ignored
    normal = await in_thread_if(is_long(messages), normalized, messages, ignored)
    return await services.media.checked(model, normal, ignored)


def naming(info: RequestInfo, response: R) -> R:
    """Return `response`, whose header names what was left out by the time it is sent."""
    response.late_headers = info.ignored.headers
    return response
