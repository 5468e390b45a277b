"""OpenAI's `/v1/responses`: answers that are stored, and requests that continue from them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from myllm.api.http.json_bodies import CheckedRoute
from myllm.api.http.streaming import DeferredJson, Stream, to_the_end
from myllm.api.openai.responses_events import Events
from myllm.api.openai.responses_items import is_much, messages_of
from myllm.api.openai.responses_order import Order
from myllm.api.openai.responses_output import Form, whole
from myllm.api.openai.responses_references import resolved, shown
from myllm.api.openai.responses_schemas import ResponsesRequest
from myllm.api.openai.responses_tools import Tools
from myllm.api.shared.conversation import naming, prepared
from myllm.api.shared.dependencies import ClientDep, ServicesDep, SessionsDep
from myllm.api.shared.tools import tools_or_format
from myllm.errors import MyLLMError, PromptTooLong
from myllm.gateway.conversation.ignored import Ignored
from myllm.gateway.conversation.messages import Messages, RawMessages
from myllm.gateway.generation.answers import ChatAnswer
from myllm.gateway.generation.chat_job import ChatJob
from myllm.gateway.generation.events import Finished
from myllm.gateway.generation.sampling import OPENAI_DEFAULTS, UNBOUNDED
from myllm.gateway.generation.stored_responses import ResponseTurn, forget, stored
from myllm.gateway.model_lookup import chatting_model
from myllm.models.registry import Model
from myllm.sessions.history import from_wire
from myllm.threads import in_thread_if

router = APIRouter(prefix="/v1", tags=["OpenAI"], route_class=CheckedRoute)
# So many are read in a millisecond.
_FEW_TOOLS = 100
_DEFAULTS = OPENAI_DEFAULTS | {"max_tokens": UNBOUNDED}
_EVENTS = (
    'event: response.created\ndata: {"type":"response.created","sequence_number":0,"response":'
    '{...}}\n\nevent: response.output_text.delta\ndata: {"type":"response.output_text.delta",'
    '"sequence_number":4,"item_id":"msg_...","output_index":0,"content_index":0,"delta":"The"}\n\n'
    'event: response.completed\ndata: {"type":"response.completed","sequence_number":15,'
    '"response":{...}}\n\n'
)
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"example": _EVENTS}}}
}


@router.post("/responses", responses=_STREAM)
async def create_response(
    request: ResponsesRequest, services: ServicesDep, client: ClientDep
) -> Response:
    """Answer an input, alone or continuing from another response."""
    info = request.info(client)
    most_bytes = int(services.settings.max_body_mb * 2**20)
    items = await resolved(services.sessions, client.owner, request.items(), most_bytes)
    many = is_much(items) or len(request.tools or ()) > _FEW_TOOLS
    tools, raw = await in_thread_if(many, _read, request, items, info.ignored)
    messages = await prepared(services, info, request.model, raw)
    form = Form(tools, request.encodes_thinking())
    model = await chatting_model(services.gateway, request.model)
    turn, job = await in_thread_if(many, _asked, request, model, messages, tools, info.ignored)
    answer = ChatAnswer(
        services.gateway,
        services.sessions,
        info,
        job,
        streamed=bool(request.stream),
        session_timeout_s=services.settings.queue_timeout,
    )
    if request.stream:
        return naming(info, _stream(answer, turn, form))

    async def make() -> Mapping[str, Any]:
        order = turn.record["order"]
        end = await to_the_end(answer, Order(order).take)
        status = "incomplete" if end.finish_reason == "length" else "completed"
        made = form.output(turn.key, end.full_text, end.thinking, end.calls, status, order)
        return whole(turn.record, made) | end.unstored()

    return naming(info, DeferredJson(make))


@router.get("/responses/{response_id}")
async def show_response(
    response_id: str, sessions: SessionsDep, client: ClientDep
) -> dict[str, Any]:
    """Return a stored response."""
    return shown(await stored(sessions, client.owner, response_id))


@router.delete("/responses/{response_id}")
async def remove_response(
    response_id: str, sessions: SessionsDep, client: ClientDep
) -> dict[str, Any]:
    """Delete a response; the conversation is deleted with its last one."""
    await forget(sessions, client.owner, response_id)
    return {"id": response_id, "object": "response", "deleted": True}


def _read(
    request: ResponsesRequest, items: Sequence[Mapping[str, Any]], ignored: Ignored
) -> tuple[Tools, RawMessages]:
    request.name_unread(ignored)
    tools = request.offered(ignored)
    return tools, messages_of(items, tools, ignored)


def _asked(
    request: ResponsesRequest, model: Model, messages: Messages, tools: Tools, ignored: Ignored
) -> tuple[ResponseTurn, ChatJob]:
    effort = request.effort()
    called = request.fields(tools, ignored)
    fields = tools_or_format({**called, "json_schema": request.json_schema()})
    schema = fields.pop("json_schema", None)
    if model.thinks and effort not in (None, "none"):
        fields["reasoning_effort"] = effort
    turn = ResponseTurn(
        [from_wire(message) for message in messages],
        request.previous_response_id,
        request.instructions,
        request.store is not False,
        model.name,
        request.echo(),
        tools.special(),
    )
    job = ChatJob(
        model,
        turn,
        request.options(),
        fields,
        effort != "none" if model.thinks and effort is not None else None,
        schema,
        _DEFAULTS,
    )
    return turn, job


def _stream(answer: ChatAnswer, turn: ResponseTurn, form: Form) -> Stream:
    events: Events | None = None

    def begun() -> Events:
        nonlocal events
        events = Events(turn.key, turn.record, form)
        return events

    async def frames() -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(answer.events()) as pieces:
                async for made in pieces:
                    if events is None:
                        yield begun().begin()
                    assert events is not None
                    yield events.end(made) if isinstance(made, Finished) else events.say(made)
        except PromptTooLong as error:
            # With status 400, Codex would not see that it has to compact the conversation.
            yield (events or begun()).fail(error)

    def fail(error: MyLLMError) -> bytes:
        return (events or begun()).fail(error)

    return Stream(frames, fail, lambda: answer.phase)
