"""Shared by dialects with their own form of a chat.

They translate it into OpenAI's form, which the engine understands, and translate the answer back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from myllm.api.shared.conversation import prepared
from myllm.api.shared.dependencies import Services
from myllm.api.shared.tools import tools_or_format
from myllm.errors import InvalidRequest
from myllm.gateway.conversation.messages import RawMessages
from myllm.gateway.generation.chat_route import EngineChat, chat_body
from myllm.gateway.generation.events import Call
from myllm.gateway.generation.relay import CHAT
from myllm.gateway.generation.sampling import resolve
from myllm.gateway.model_lookup import chatting_model
from myllm.gateway.scheduling.demand import Demand
from myllm.gateway.scheduling.tickets import RequestInfo, Ticket
from myllm.supervisor.spec import InstanceKey


@dataclass(frozen=True)
class Chat:
    """A chat in OpenAI's form.

    `options` are sampling options, `defaults` the dialect's defaults for them, and `fields` are
    others of `/v1/chat/completions`.
    """

    messages: RawMessages
    options: Mapping[str, Any]
    defaults: Mapping[str, Any]
    fields: Mapping[str, Any]


async def start_chat(
    services: Services, info: RequestInfo, model_name: str, chat: Chat
) -> tuple[Ticket, EngineChat]:
    """Return the ticket for the queue and the answer to `chat`, which is not begun yet.

    Raises ModelNotFound, and InvalidRequest for what the model cannot do, see or hear, and for a
    format of the answer together with tools that may be called.
    """
    fields = tools_or_format(chat.fields)
    model = await chatting_model(services.gateway, model_name)
    messages = await prepared(services, info, model.name, chat.messages)
    demand = Demand(CHAT, {**chat.options, **fields, "messages": messages})
    ticket = info.ticket(InstanceKey(model.name, "generate"), demand)
    sampling = resolve(chat.options, model.config.parameters, chat.defaults)
    body = chat_body(messages, sampling, fields)
    return ticket, EngineChat(services.gateway, ticket, body)


def content_of(texts: list[str], images: list[str]) -> str | list[dict[str, Any]]:
    """Return a message's content: its images, as URLs or in base64, and then its texts."""
    text = "\n".join(texts)
    if not images:
        return text
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": url}} for url in images
    ]
    return [*parts, {"type": "text", "text": text}] if text else parts


def wire_call(call_id: str, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool call in the form of OpenAI's messages."""
    try:
        function = {"name": name, "arguments": orjson.dumps(arguments).decode()}
    except TypeError as failure:
        raise InvalidRequest(f"The arguments of a call cannot be passed on: {failure}") from None
    return {"id": call_id, "type": "function", "function": function}


def input_of(call: Call) -> dict[str, Any]:
    """Return the arguments of a tool call; none if the call was cut in the middle."""
    try:
        parsed = orjson.loads(call.arguments)
    except orjson.JSONDecodeError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
