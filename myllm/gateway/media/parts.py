"""Pictures and sounds in messages: checked, and brought into the one form that engines get.

An engine would read files and fetch URLs that it is asked to, so all that reaches it is a
`data:` URL that was written here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from myllm.errors import InvalidRequest
from myllm.gateway.conversation.ignored import Ignored
from myllm.gateway.conversation.messages import Messages, Part, is_long
from myllm.gateway.conversation.normalize import joined, to_be_answered
from myllm.gateway.media.data_urls import checked_base64, read_data_url
from myllm.models.projector import Medium
from myllm.models.registry import Model

_SOUNDS: Final = ("wav", "mp3", "flac")
# Stands between two media. A slot of llama-server that has read one directly behind another
# fails at every later prompt that is the same up to the first one's end ("Chunk not found").
_LINE_END: Final = {"type": "text", "text": "\n"}
_NOT_HAD: Final = "it cannot be fetched"
_KNOWN: Final = "'text', 'image_url', 'input_audio' or 'file'"
_CANNOT: Final[dict[str, str]] = {"image": "cannot see images", "audio": "cannot hear audio"}
_SHOWS: Final = {"image_url": "image", "input_audio": "audio", "file": "file"}
"""What a part of each type shows, as the model is told when it is left out."""
_ENCODER: Final[dict[str, str]] = {"image": "vision", "audio": "audio"}


@dataclass(frozen=True)
class Elsewhere:
    """Something to be fetched from `url`; its `data:` URL is wanted in `place[name]`.

    `is_needed` unless the request can be answered without it.
    """

    place: dict[str, str]
    name: str
    url: str
    medium: Medium
    is_needed: bool = True


class Remote(Protocol):
    """Fetches what is elsewhere."""

    async def fill(self, wanted: Sequence[Elsewhere]) -> None:
        """Put everything into its place; what cannot be had raises InvalidRequest if it is needed,
        and otherwise leaves its place empty."""


class Media:
    """`find` is the model of a name; without `remote` nothing is fetched."""

    def __init__(self, find: Callable[[str], Awaitable[Model]], remote: Remote | None) -> None:
        self._find = find
        self._remote = remote

    async def checked(self, model: str, messages: Messages, ignored: Ignored) -> Messages:
        """`messages` as the engine of `model` can have them: parts are texts, pictures and
        sounds, the latter as `data:` URLs.

        A medium that cannot be read is left out, such as one that the model has no encoder for, or
        one that cannot be fetched: the model is told so in its place, and `ignored` names it. But
        the request depends on what is in the user's last message.

        Raises InvalidRequest for any other part, and for such a medium that the request depends on;
        ModelNotFound and InvalidModel.
        """
        if all(isinstance(message.get("content"), str | None) for message in messages):
            return messages
        reading = _Reading(await self._find(model), self._remote is not None, ignored)
        if _is_little(messages):
            return reading.settled(reading.read(messages))
        made = await asyncio.to_thread(reading.read, messages)
        if self._remote is not None and reading.elsewhere:
            await self._remote.fill(reading.elsewhere)
        return await asyncio.to_thread(reading.settled, made)

    async def raw(self, model: Model, data: Sequence[str]) -> list[str]:
        """The pictures and sounds of a prompt without a chat template, in base64 alone.

        Raises InvalidRequest for anything else, and when `model` has no encoder at all.
        """
        if not any(medium in model.input for medium in _CANNOT):
            _require(model, "image")
        return await asyncio.to_thread(
            lambda: [checked_base64(each, f"multimodal_data[{n}]") for n, each in enumerate(data)]
        )


def carried(messages: Messages) -> Messages:
    """`messages` of a conversation that may go on with any model: their pictures and sounds are
    with them, because only the engine looks again at an address in a stored message.

    Raises InvalidRequest for any other part.
    """
    reading = _Reading(None, fetches=False, ignored=None)
    return reading.settled(reading.read(messages))


class _Reading:
    """Goes through the parts of one request, for a model or for any: `read` collects in `elsewhere`
    what is to be fetched before `settled`. Without `ignored` nothing is left out."""

    def __init__(self, model: Model | None, fetches: bool, ignored: Ignored | None) -> None:
        self._model = model
        self._ignored = ignored
        self._is_asked = False  # whether the parts are of the message that is to be answered
        self._fetches = fetches
        self.elsewhere: list[Elsewhere] = []

    def read(self, messages: Messages) -> Messages:
        """Return `messages`, whose parts are checked; those that are elsewhere are still empty."""
        made: Messages = []
        asked = to_be_answered(messages)
        for number, message in enumerate(messages):
            content: Any = message["content"]
            if not isinstance(content, str):
                self._is_asked = number == asked
                where = _content(number)
                if not isinstance(content, list):
                    raise InvalidRequest(f"{where} must be a text or a list of parts")
                parts = [
                    self._part(part, f"{where}[{index}]") for index, part in enumerate(content)
                ]
                message = {**message, "content": parts}
            made.append(message)
        return made

    def settled(self, messages: Messages) -> Messages:
        """Return what `read` returned, as engines read it; what was not fetched is left out."""
        made: Messages = []
        for number, message in enumerate(messages):
            parts = message["content"]
            if not isinstance(parts, str):
                if self.elsewhere:
                    where = _content(number)
                    parts = [self._fetched(part, where, index) for index, part in enumerate(parts)]
                message = {**message, "content": joined(_apart(parts))}
            made.append(message)
        return made

    def _fetched(self, part: Part, where: str, index: int) -> Part:
        kind = part["type"]
        if kind == "text" or part[kind]:
            return part
        return self._left_out(f"{where}[{index}]", _SHOWS[kind], _NOT_HAD)

    def _part(self, part: Any, where: str) -> Part:
        try:
            return self._readable(part, where)
        except InvalidRequest as fault:
            kind = part.get("type") if isinstance(part, Mapping) else None
            shown = _SHOWS.get(kind) if isinstance(kind, str) else None
            if shown is None or self._ignored is None or self._is_asked:
                raise
            if isinstance(fault, _Unreadable):
                return self._left_out(where, fault.medium, fault.why)
            return self._left_out(where, shown, "it cannot be read")

    def _left_out(self, where: str, medium: str, why: str) -> Part:
        """Name a medium as left out, and return the text that stands in its place."""
        if self._ignored is not None:
            self._ignored.add(f"{where} ({medium})")
        return {"type": "text", "text": f"[{medium}: left out, {why}]"}

    def _readable(self, part: Any, where: str) -> Part:
        kind = part.get("type") if isinstance(part, Mapping) else None
        match kind:
            case "text":
                return {"type": "text", "text": _text(part, "text", where)}
            case "image_url":
                _require(self._model, "image")
                given = part.get("image_url")
                url = given if isinstance(given, str) else _text(given, "url", f"{where}.image_url")
                return self._picture(url, f"{where}.image_url.url")
            case "input_audio":
                _require(self._model, "audio")
                given, where = part.get("input_audio"), f"{where}.input_audio"
                data = _text(given, "data", where)
                if given.get("format", "wav") not in _SOUNDS:
                    raise InvalidRequest(f"{where}.format must be one of {', '.join(_SOUNDS)}")
                return self._sound(data, f"{where}.data")
            case "file":
                return self._file(_text(part.get("file"), "file_data", f"{where}.file"), where)
        raise InvalidRequest(f"{where}.type must be {_KNOWN}, not {kind!r}")

    def _file(self, data: str, where: str) -> Part:
        """The type in a file's `data:` URL determines its medium."""
        where = f"{where}.file.file_data"
        medium, url = read_data_url(data, where)
        if medium == "image":
            _require(self._model, "image")
            return self._picture(url, where)
        if medium == "audio":
            _require(self._model, "audio")
            return self._sound(url, where)
        must = f"{where} must be of type image/... or audio/..., not {medium}/..."
        raise _Unreadable(must, "file", "no model can read it")

    def _picture(self, given: str, where: str) -> Part:
        return {"type": "image_url", "image_url": self._data_url("url", given, "image", where)}

    def _sound(self, given: str, where: str) -> Part:
        return {"type": "input_audio", "input_audio": self._data_url("data", given, "audio", where)}

    def _data_url(self, name: str, given: str, medium: Medium, where: str) -> dict[str, str]:
        """The `data:` URL of what is given as one or as bare base64, under its name; what is
        given as an address follows later."""
        if given[:5].lower() == "data:":
            found, url = read_data_url(given, where)
            if found != medium:
                raise InvalidRequest(f"{where} must be of type {medium}/..., not {found}/...")
            return {name: url}
        if ":" not in given:
            return {name: f"data:{medium}/unknown;base64,{checked_base64(given, where)}"}
        if not given.lower().startswith(("http://", "https://")):
            raise InvalidRequest(f"{where} must be a data: URL or base64")
        if not self._fetches:
            must = (
                f"{where} is an address elsewhere, from which this server fetches nothing "
                "(MYLLM_REMOTE_MEDIA); send a data: URL"
            )
            raise _Unreadable(must, medium, _NOT_HAD)
        place: dict[str, str] = {}
        self.elsewhere.append(Elsewhere(place, name, given, medium, self._is_asked))
        return place


def _content(number: int) -> str:
    """Return the path of a message's content in the request."""
    return f"messages[{number}].content"


def _apart(parts: list[Part]) -> list[Part]:
    """Return `parts` with a line end between two media."""
    made: list[Part] = []
    for part in parts:
        if made and "text" not in made[-1] and "text" not in part:
            made.append(_LINE_END)
        made.append(part)
    return made


def _is_little(messages: Messages) -> bool:
    """Whether the parts are few, and texts only: a picture of megabytes is one part."""
    lists = [content for each in messages if isinstance(content := each.get("content"), list)]
    return not is_long(messages) and not any(
        isinstance(part, Mapping) and part.get("type") != "text" for each in lists for part in each
    )


class _Unreadable(InvalidRequest):
    """A model cannot have a part, for the reason `why`, which the model can be told instead."""

    def __init__(self, detail: str, medium: str, why: str) -> None:
        super().__init__(detail)
        self.medium = medium
        self.why = why


def _require(model: Model | None, medium: Medium) -> None:
    if model is None or medium in model.input:
        return
    why = "it has no projector (mmproj-*.gguf) next to its GGUF"
    if model.projector is not None:
        why = f"its projector ({model.projector.path.name}) has no {_ENCODER[medium]} encoder"
    raise _Unreadable(
        f"Model '{model.name}' {_CANNOT[medium]}: {why}",
        medium,
        f"this model {_CANNOT[medium]}",
    )


def _text(holder: Any, name: str, where: str) -> str:
    value = holder.get(name) if isinstance(holder, Mapping) else None
    if not isinstance(value, str):
        raise InvalidRequest(f"{where}.{name} must be a string")
    return value
