"""The routes of stored sessions: list, search, rename, fork, export, import and remove them."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from typing import Annotated, Any, cast

from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import Response
from pydantic import AfterValidator, Field

from myllm.api.http.json_bodies import CheckedRoute, checked
from myllm.api.native.schemas import ChatRequest, ForkRequest, RenameRequest
from myllm.api.shared.bounded import Name
from myllm.api.shared.dependencies import RegistryDep, SessionsDep
from myllm.api.shared.owners import OwnerDep, OwnersDep, name_of
from myllm.api.shared.timestamps import iso
from myllm.errors import InvalidRequest
from myllm.gateway.conversation.ignored import Ignored
from myllm.gateway.conversation.messages import ChatMessage
from myllm.gateway.conversation.normalize import normalized
from myllm.gateway.media.parts import carried
from myllm.limits import SEARCH_CHARS
from myllm.sessions.history import Extra, Message, from_wire, storable
from myllm.sessions.session import SessionRef, StoredMessage, Summary
from myllm.sessions.store import SessionStore, check_id
from myllm.sessions.transfer import Document, Format, read, write

router = APIRouter(prefix="/api/sessions", tags=["Sessions"], route_class=CheckedRoute)

# Checked here, because the database would refuse such a text only later.
_Search = Annotated[str, Field(max_length=SEARCH_CHARS), AfterValidator(storable)]
_Model = Annotated[Name, AfterValidator(storable)]
_MEDIA: dict[Format, str] = {"json": "application/json", "markdown": "text/markdown; charset=utf-8"}
_ENDINGS: dict[Format, str] = {"json": "json", "markdown": "md"}
_FILES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "text/markdown": {"schema": {"type": "string"}},
        },
    }
}


@router.get("")
async def list_sessions(
    sessions: SessionsDep,
    registry: RegistryDep,
    owner: OwnersDep,
    limit: Annotated[int, Query(ge=1, le=500, description="How many at most.")] = 50,
    cursor: Annotated[Name | None, Query(description="`next_cursor` of the page before.")] = None,
    search: Annotated[_Search, Query(description="A text in a title or a message.")] = "",
    model: Annotated[_Model, Query(description="Only this model's.")] = "",
) -> dict[str, Any]:
    """List the most recently used sessions, and where the next page begins."""
    if model:  # sessions are stored under their model's own name
        model = await asyncio.to_thread(registry.name_of, model)
    archive = await sessions.archive()
    page, following = await archive.page(owner, limit, cursor, search, model)
    shown = [_summary(each) for each in page]
    if owner is None:
        for entry, each in zip(shown, page, strict=True):
            entry["owner"] = name_of(each.owner)
    return {"sessions": shown, "next_cursor": following}


@router.get("/{session_id}")
async def show_session(session_id: str, sessions: SessionsDep, owner: OwnerDep) -> dict[str, Any]:
    """Show a session with all its messages; prompts no longer contain superseded ones."""
    found, stored = await (await sessions.archive()).listed(SessionRef(owner, session_id))
    return _summary(found) | {"messages": [_message(each) for each in stored]}


@router.patch("/{session_id}")
async def rename_session(
    session_id: str, body: RenameRequest, sessions: SessionsDep, owner: OwnerDep
) -> dict[str, Any]:
    """Give a session another title."""
    ref = SessionRef(owner, session_id)
    await (await sessions.archive()).rename(ref, body.title)
    return await _shown(sessions, ref)


@router.delete("/{session_id}")
async def remove_session(session_id: str, sessions: SessionsDep, owner: OwnerDep) -> dict[str, str]:
    """Remove a session, its messages and its saved state."""
    await sessions.remove(SessionRef(owner, session_id))
    return {"status": "success", "message": f"Session '{session_id}' removed"}


@router.delete("/{session_id}/messages/{message}")
async def take_back(
    session_id: str, message: int, sessions: SessionsDep, owner: OwnerDep
) -> dict[str, str]:
    """Take back a message and all that follow it; they are kept as superseded messages."""
    await sessions.take_back(SessionRef(owner, session_id), message)
    text = f"Session '{session_id}' goes on from before message {message}"
    return {"status": "success", "message": text}


@router.post("/{session_id}/fork", status_code=201)
async def fork_session(
    session_id: str,
    sessions: SessionsDep,
    owner: OwnerDep,
    body: Annotated[ForkRequest, Body(default_factory=ForkRequest)],
) -> dict[str, Any]:
    """Begin another session with the messages of this one, up to and including `message`."""
    new_id = _new_id(body.session_id)
    archive = await sessions.archive()
    await archive.fork(SessionRef(owner, session_id), new_id, body.message)
    return await _shown(sessions, SessionRef(owner, new_id))


@router.get("/{session_id}/export")
async def export_session(
    session_id: str,
    sessions: SessionsDep,
    owner: OwnerDep,
    form: Annotated[
        Format, Query(alias="format", description="JSON for programs, Markdown for people.")
    ] = "json",
) -> Response:
    """Export a session without its superseded messages; POST it to /api/sessions/import."""
    found, stored = await (await sessions.archive()).listed(SessionRef(owner, session_id))
    messages = tuple(each.message for each in stored if not each.superseded)
    text = write(Document(found.id, found.model, found.title, messages), form)
    name = f"{session_id.replace(':', '_')}.{_ENDINGS[form]}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(text, media_type=_MEDIA[form], headers=headers)


@router.post("/import", status_code=201, openapi_extra=_FILES)
async def import_session(
    request: Request,
    sessions: SessionsDep,
    owner: OwnerDep,
    session_id: Annotated[Name | None, Query(description="Instead of the id in the file.")] = None,
) -> dict[str, Any]:
    """Import a session that was exported as JSON or Markdown."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    forms = {kind.partition(";")[0]: form for form, kind in _MEDIA.items()}
    if media not in forms:
        raise InvalidRequest("Content-Type must be application/json or text/markdown")
    try:
        text = (await request.body()).decode()
    except UnicodeDecodeError as failure:
        raise InvalidRequest(f"The body is not UTF-8: {failure.reason}") from None
    document = await checked(True, lambda: _checked(read(text, forms[media])))
    ref = SessionRef(owner, _new_id(session_id or document.id))
    archive = await sessions.archive()
    title, messages = document.title, document.messages
    await archive.add(ref, document.model, title, messages)
    return await _shown(sessions, ref)


def _checked(document: Document) -> Document:
    """Return the document, if a chat could post it: a file cannot evade the limits of a chat.

    Raises InvalidRequest and ValidationError.
    """
    wire = [_posted(message) for message in document.messages]
    ChatRequest.model_validate({"model": document.model, "messages": wire})
    if document.title:
        RenameRequest.model_validate({"title": document.title})
    ignored = Ignored()
    whole = carried(normalized(wire, ignored))
    for left_out in ignored.headers().values():
        raise InvalidRequest(f"no chat can have {left_out}")
    messages = [
        _in_form(message, posted) for message, posted in zip(document.messages, whole, strict=True)
    ]
    return replace(document, messages=tuple(messages))


def _posted(message: Message) -> dict[str, Any]:
    """Return a message in the form in which a chat posts it."""
    shown = message.shown()
    content = shown.pop("parts", message.content)
    return {"role": message.role, "content": content, **shown}


def _in_form(message: Message, posted: ChatMessage) -> Message:
    """Return `message` with its calls and parts in the form for engines."""
    extra = from_wire(posted).extra
    if extra is None:
        return message
    return replace(message, extra=cast(Extra, {**(message.extra or {}), **extra}))


async def _shown(sessions: SessionStore, ref: SessionRef) -> dict[str, Any]:
    found, _ = await (await sessions.archive()).listed(ref)
    return _summary(found)


def _new_id(wanted: str | None) -> str:
    if wanted is None:
        return str(uuid.uuid4())
    check_id(wanted)
    return wanted


def _summary(session: Summary) -> dict[str, Any]:
    return {
        "id": session.id,
        "model": session.model,
        "title": session.title,
        "message_count": session.messages,
        "created_at": iso(session.created),
        "updated_at": iso(session.updated),
    }


def _message(stored: StoredMessage) -> dict[str, Any]:
    message = stored.message
    return {
        "id": message.key,
        "role": message.role,
        "content": message.content,
        "tokens": message.tokens,
        "partial": message.partial,
        "superseded": stored.superseded,
        "created_at": iso(stored.created),
        **message.shown(),
    }
