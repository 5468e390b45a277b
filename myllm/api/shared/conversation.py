"""The way of every dialect's messages to an engine."""

from __future__ import annotations

from typing import TypeVar

from myllm.api.http.streaming import DeferredResponse, Stream
from myllm.api.shared.dependencies import Services
from myllm.gateway.conversation.ignored import HEADER, Ignored
from myllm.gateway.conversation.messages import Messages, RawMessages
from myllm.gateway.conversation.normalize import normalized

R = TypeVar("R", bound=Stream | DeferredResponse)


async def prepared(
    services: Services, model: str, messages: RawMessages, ignored: Ignored
) -> Messages:
    """Return `messages`, in OpenAI's form as clients write it, fit for the engine of `model`.

    `ignored` collects what is left out. Raises InvalidRequest for what no repair can save;
    ModelNotFound and InvalidModel.
    """
    return await services.media.checked(model, normalized(messages, ignored))


def naming(ignored: Ignored, response: R) -> R:
    """Return `response`, whose header names what is ignored, if anything is."""
    if ignored:
        response.add_header(HEADER, ignored.header())
    return response
