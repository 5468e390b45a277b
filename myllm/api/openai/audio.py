"""OpenAI's dialect: transcription of recordings, by a chat with a model that takes audio."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Request, UploadFile
from pydantic import Field
from starlette.responses import PlainTextResponse, Response

from myllm.api.http.json_bodies import CheckedRoute, Handler
from myllm.api.http.streaming import DeferredJson, DeferredResponse, Stream, to_the_end
from myllm.api.shared.bounded import Name
from myllm.api.shared.completions import error_event
from myllm.api.shared.dependencies import ClientDep, Services, ServicesDep
from myllm.api.shared.translated_chat import Chat, start_chat
from myllm.errors import InvalidRequest
from myllm.gateway.conversation.messages import RawMessages
from myllm.gateway.engine_io.sse import event
from myllm.gateway.generation.chat_route import EngineChat
from myllm.gateway.generation.events import Finished, Token
from myllm.gateway.generation.sampling import OPENAI_DEFAULTS
from myllm.gateway.media.durations import duration_s
from myllm.gateway.scheduling.tickets import RequestInfo
from myllm.gateway.usage import Usage


class FileRoute(CheckedRoute):
    """Takes multipart forms only: other forms have no file, and are slow to read."""

    def get_route_handler(self) -> Handler:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            content_type = request.headers.get("content-type", "")
            if not content_type.lower().startswith("multipart/form-data"):
                raise InvalidRequest("Content-Type must be multipart/form-data, with a file")
            return await handler(request)

        return handle


router = APIRouter(prefix="/v1/audio", tags=["OpenAI"], route_class=FileRoute)
_Granularities = Annotated[list[Literal["segment"]], Field(max_length=1, fail_fast=True)]
# llama.cpp's wording, which models for transcription are trained on.
_TASK = "Transcribe audio to text"
_DEFAULTS = OPENAI_DEFAULTS | {"temperature": 0.0}


@router.post("/transcriptions")
async def transcriptions(
    services: ServicesDep,
    client: ClientDep,
    file: Annotated[UploadFile, File(description="The recording: wav, mp3 or flac.")],
    model: Annotated[Name, Form(description="A model's name or alias, from GET /v1/models.")],
    prompt: Annotated[str | None, Form(description="Replaces the default instruction.")] = None,
    language: Annotated[Name | None, Form(description="The spoken language, such as `en`.")] = None,
    response_format: Annotated[
        Literal["json", "text", "verbose_json"],
        Form(description="A JSON object, the text alone, or an object with a segment."),
    ] = "json",
    temperature: Annotated[
        float | None, Form(ge=0.0, le=2.0, description="Higher is more random.")
    ] = None,
    stream: Annotated[bool, Form(description="Server-sent events.")] = False,
    timestamp_granularities: Annotated[
        _Granularities | None,
        Form(alias="timestamp_granularities[]", description="Segments alone."),
    ] = None,
) -> Response:
    """Transcribe a recording."""
    task = (prompt or _TASK) + (f" (language: {language})" if language else "")
    options = {} if temperature is None else {"temperature": temperature}
    info = RequestInfo(client)
    recording = await file.read()
    chat = await _chat(services, info, model, task, recording, options)
    if stream:
        return Stream(lambda: _events(chat), error_event, lambda: chat.phase)
    if response_format == "text":
        return DeferredResponse(lambda: _text(chat))

    async def make() -> dict[str, Any]:
        end = await to_the_end(chat)
        answer = {"text": end.full_text, "usage": _usage(end.usage)}
        if response_format == "verbose_json":
            return answer | _verbose(end.full_text, language, duration_s(recording))
        return answer

    return DeferredJson(make)


async def _chat(
    services: Services,
    info: RequestInfo,
    name: str,
    task: str,
    recording: bytes,
    options: dict[str, Any],
) -> EngineChat:
    if not recording:
        raise InvalidRequest("file must not be empty")
    heard = {"type": "input_audio", "input_audio": {"data": base64.b64encode(recording).decode()}}
    messages: RawMessages = [{"role": "user", "content": [{"type": "text", "text": task}, heard]}]
    _, chat = await start_chat(services, info, name, Chat(messages, options, _DEFAULTS, {}))
    return chat


def _verbose(text: str, language: str | None, duration: float | None) -> dict[str, Any]:
    """Return what is known besides the text: a chat model reports no times and no language.

    The only segment is the whole recording, if its length is known.
    """
    told: dict[str, Any] = {"task": "transcribe", "segments": []}
    if language is not None:
        told["language"] = language
    if duration is not None:
        told["duration"] = duration
        told["segments"] = [{"id": 0, "start": 0.0, "end": duration, "text": text}]
    return told


async def _text(chat: EngineChat) -> Response:
    return PlainTextResponse((await to_the_end(chat)).full_text + "\n")


async def _events(chat: EngineChat) -> AsyncGenerator[bytes, None]:
    async with aclosing(chat.events()) as events:
        async for made in events:
            if isinstance(made, Token):
                yield event({"type": "transcript.text.delta", "delta": made.text})
            elif isinstance(made, Finished):
                done = {"type": "transcript.text.done", "text": made.full_text}
                yield event(done | {"usage": _usage(made.usage)})


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "type": "tokens",
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
