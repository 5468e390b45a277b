"""Ollama's dialect: generate, chat, embeddings. Its clients are given `/ollama` as their host."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from myllm.api.errors.envelopes import envelope
from myllm.api.errors.handlers import status_of
from myllm.api.http.json_bodies import CheckedRoute
from myllm.api.http.streaming import DeferredJson, Stream, described
from myllm.api.ollama.schemas import (
    EmbedRequest,
    OldEmbeddingsRequest,
    OllamaChatRequest,
    OllamaGenerateRequest,
)
from myllm.api.ollama.translate import Lines, are_many, messages_of, prompt_of
from myllm.api.shared.conversation import naming
from myllm.api.shared.dependencies import ClientDep, Services, ServicesDep, check_admin
from myllm.api.shared.tools import tool_fields
from myllm.api.shared.translated_chat import Chat, start_chat
from myllm.errors import InvalidRequest, MyLLMError
from myllm.gateway.client import Client
from myllm.gateway.embedding import embed
from myllm.gateway.generation.answers import Answer, RawAnswer, generating_model
from myllm.gateway.generation.infill import InfillAnswer
from myllm.gateway.generation.sampling import OLLAMA_DEFAULTS
from myllm.gateway.scheduling.tickets import RequestInfo, Ticket
from myllm.models.registry import Model
from myllm.threads import in_thread_if

LINES = {"Content-Type": "application/x-ndjson", "X-Accel-Buffering": "no"}


class AnyContentType(CheckedRoute):
    """Reads every body as JSON, whatever its Content-Type: Ollama's documentation uses `curl -d`,
    which declares a form."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            kept = [pair for pair in request.scope["headers"] if pair[0] != b"content-type"]
            headers = [*kept, (b"content-type", b"application/json")]
            return await handler(Request({**request.scope, "headers": headers}, request.receive))

        return handle


router = APIRouter(prefix="/ollama/api", tags=["Ollama"], route_class=AnyContentType)


@router.post("/generate", responses=described("application/x-ndjson"))
async def generate(
    request: OllamaGenerateRequest, services: ServicesDep, client: ClientDep
) -> Response:
    """Answer a prompt as a conversation of one message, or complete it as it is (`raw`)."""
    lines = Lines(request.model, chat=False)
    if not (request.prompt or request.images):
        return _load_or_unload(services, client, request, lines)
    for name in ("template", "context"):
        if getattr(request, name):
            raise InvalidRequest(f"{name} is not supported; leave it out")
    info = request.info(client)
    model = await generating_model(services.gateway, request.model)
    if request.suffix:
        return _infill(services, info, model, request, lines)
    # Without a chat template, a model completes the prompt as it is, as in Ollama.
    plain = bool(request.prompt) and not (request.images or request.system)
    if not request.raw and not (plain and model.chat.is_missing):
        chat = Chat(prompt_of(request), request.sampling(), OLLAMA_DEFAULTS, request.fields())
        made = await start_chat(services, info, request.model, chat)
        return naming(info, _answer(lines, request.stream, *made))
    if not plain:
        raise InvalidRequest("raw takes a prompt alone, without system and images")
    raw = RawAnswer(
        services.gateway,
        info,
        model,
        request.prompt or "",
        request.sampling(),
        request.json_schema(),
        OLLAMA_DEFAULTS,
    )
    return naming(info, _answer(lines, request.stream, raw.ticket, raw))


def _infill(
    services: Services,
    info: RequestInfo,
    model: Model,
    request: OllamaGenerateRequest,
    lines: Lines,
) -> Response:
    """Answer with what comes between the prompt and the suffix, in which a system message has no
    place: Ollama's templates leave it out, too."""
    if request.images:
        raise InvalidRequest("suffix takes a prompt alone, without images")
    if request.system:
        info.ignored.add("system")
    texts, schema = (request.prompt or "", request.suffix or ""), request.json_schema()
    gateway, sampling = services.gateway, request.sampling()
    answer = InfillAnswer(gateway, info, model, texts, sampling, schema, OLLAMA_DEFAULTS)
    return naming(info, _answer(lines, request.stream, answer.ticket, answer))


@router.post("/chat", responses=described("application/x-ndjson"))
async def chat(request: OllamaChatRequest, services: ServicesDep, client: ClientDep) -> Response:
    """Answer a conversation with the model's chat template."""
    lines = Lines(request.model, chat=True)
    if not request.messages:
        return _load_or_unload(services, client, request, lines)
    info = request.info(client)
    fields = request.fields() | tool_fields(request.tools, None, info.ignored)
    messages = await in_thread_if(are_many(request.messages), messages_of, request.messages)
    chat_request = Chat(messages, request.sampling(), OLLAMA_DEFAULTS, fields)
    made = await start_chat(services, info, request.model, chat_request)
    return naming(info, _answer(lines, request.stream, *made))


@router.post("/embed")
async def embed_texts(request: EmbedRequest, services: ServicesDep, client: ClientDep) -> Response:
    """One vector for each text."""
    lines = Lines(request.model, chat=False)
    info = request.info(client)

    async def make() -> Mapping[str, Any]:
        if not request.input:
            return {"model": request.model, "embeddings": []}
        made = await embed(
            services.gateway,
            info,
            request.model,
            request.input,
            request.dimensions,
            cut=request.truncate is not False,
        )
        return {
            "model": request.model,
            "embeddings": made.vectors,
            "total_duration": lines.passed_ns(),
            "prompt_eval_count": made.prompt_tokens,
        }

    return DeferredJson(make)


@router.post("/embeddings")
async def old_embeddings(
    request: OldEmbeddingsRequest, services: ServicesDep, client: ClientDep
) -> Response:
    """One vector for one text."""
    info = request.info(client)

    async def make() -> Mapping[str, Any]:
        prompt = request.prompt or ""
        made = await embed(services.gateway, info, request.model, [prompt], cut=True)
        return {"embedding": made.vectors[0]}

    return DeferredJson(make)


def _answer(
    lines: Lines, stream: bool | None, ticket: Ticket, answer: Answer
) -> Stream | DeferredJson:
    if stream is False:
        return DeferredJson(lambda: lines.whole(answer, ticket))
    return streamed(lambda: lines.pieces(answer, ticket))


def _load_or_unload(
    services: Services,
    client: Client,
    request: OllamaGenerateRequest | OllamaChatRequest,
    lines: Lines,
) -> Response:
    """Answer a request without a prompt: load the model, as any question does, or unload it, which
    only an admin may do, since others may be using it."""
    if request.keep_alive == 0:
        check_admin(client)

    async def make() -> Mapping[str, Any]:
        gateway = services.gateway
        if request.keep_alive != 0:
            await gateway.load(request.model, request.info(client))
            return lines.nothing("load")
        model = await gateway.models.find(request.model)
        if any(gateway.snapshot().engines(model.name)):
            await gateway.unload(model.name)
        return lines.nothing("unload")

    return DeferredJson(make)


def streamed(make: Callable[[], AsyncGenerator[Mapping[str, Any], None]]) -> Stream:
    """Return a stream of objects, one per line; an error is a line, too."""

    async def frames() -> AsyncGenerator[bytes, None]:
        async with aclosing(make()) as objects:
            async for each in objects:
                yield orjson.dumps(each) + b"\n"

    return Stream(frames, _error_line, headers=LINES)


def _error_line(error: MyLLMError) -> bytes:
    return orjson.dumps(envelope("ollama", status_of(error), error.detail)) + b"\n"
