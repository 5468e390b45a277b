"""Pictures and sounds in messages: checked, and brought into the one form that engines get.

An engine would read files and fetch URLs that it is asked to, so all that reaches it is a
`data:` URL that was written here.
"""

from __future__ import annotations

import asyncio
import re
import string
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from myllm.errors import InvalidRequest
from myllm.gateway.conversation.ignored import Ignored
from myllm.gateway.conversation.messages import Messages, Part
from myllm.gateway.conversation.normalize import joined, to_be_answered
from myllm.models.projector import Medium
from myllm.models.registry import Model

# What stands before the comma; an expression over megabytes of base64 would take seconds.
_DATA_URL: Final = re.compile(r"data:(\w+)/([\w.+-]+)(?:;[\w.+=-]+)*;base64", re.I)
_LONGEST_TYPE: Final = 512
_LETTERS: Final = (string.ascii_letters + string.digits + "+/").encode()
_SPACES: Final = string.whitespace.encode()
# Letters that are looked at without letting other threads run.
_AT_ONCE: Final = 1 << 18
# More parts than these are read in a thread.
_FEW_PARTS: Final = 200
_SOUNDS: Final = ("wav", "mp3", "flac")
# Stands between two media. A slot of llama-server that has read one directly behind another
# fails at every later prompt that is the same up to the first one's end ("Chunk not found").
_LINE_END: Final = {"type": "text", "text": "\n"}
_KNOWN: Final = "'text', 'image_url', 'input_audio' or 'file'"
_CANNOT: Final[dict[str, str]] = {"image": "cannot see images", "audio": "cannot hear audio"}
_ENCODER: Final[dict[str, str]] = {"image": "vision", "audio": "audio"}


@dataclass(frozen=True)
class Elsewhere:
    """Something to be fetched from `url`; its `data:` URL is wanted in `place[name]`."""

    place: dict[str, str]
    name: str
    url: str
    medium: Medium


class Remote(Protocol):
    """Fetches what is elsewhere."""

    async def fill(self, wanted: Sequence[Elsewhere]) -> None:
        """Put everything into its place; raises InvalidRequest for what cannot be had."""


class Media:
    """`find` is the model of a name; without `remote` nothing is fetched."""

    def __init__(self, find: Callable[[str], Awaitable[Model]], remote: Remote | None) -> None:
        self._find = find
        self._remote = remote

    async def checked(self, model: str, messages: Messages, ignored: Ignored) -> Messages:
        """`messages` as the engine of `model` can have them: parts are texts, pictures and
        sounds, the latter as `data:` URLs.

        Instead of a medium that the model has no encoder for, it is told that there was one, and
        `ignored` names it, unless the request depends on it: it is in the user's last message.

        Raises InvalidRequest for any other part, for such a medium that the request depends on,
        and for what cannot be fetched; ModelNotFound and InvalidModel.
        """
        if all(isinstance(message.get("content"), str | None) for message in messages):
            return messages
        reading = _Reading(await self._find(model), self._remote is not None, ignored)
        made = (
            reading.messages(messages)
            if _is_little(messages)
            else await asyncio.to_thread(reading.messages, messages)
        )
        if self._remote is not None:
            await self._remote.fill(reading.elsewhere)
        return made

    async def raw(self, model: Model, data: Sequence[str]) -> list[str]:
        """The pictures and sounds of a prompt without a chat template, in base64 alone.

        Raises InvalidRequest for anything else, and when `model` has no encoder at all.
        """
        if not any(medium in model.input for medium in _CANNOT):
            _require(model, "image")
        return await asyncio.to_thread(
            lambda: [_base64(each, f"multimodal_data[{n}]") for n, each in enumerate(data)]
        )


def carried(messages: Messages) -> Messages:
    """`messages` of a conversation that may go on with any model: their pictures and sounds are
    with them, because only the engine looks again at an address in a stored message.

    Raises InvalidRequest for any other part.
    """
    return _Reading(None, fetches=False, ignored=None).messages(messages)


class _Reading:
    """Goes through the parts of one request, for a model or for any; `elsewhere` collects what must
    be fetched."""

    def __init__(self, model: Model | None, fetches: bool, ignored: Ignored | None) -> None:
        self._model = model
        self._ignored = ignored
        self._is_asked = False  # whether the parts are of the message that is to be answered
        self._fetches = fetches
        self.elsewhere: list[Elsewhere] = []

    def messages(self, messages: Messages) -> Messages:
        made: Messages = []
        asked = to_be_answered(messages)
        for number, message in enumerate(messages):
            content = message["content"]
            if not isinstance(content, str):
                self._is_asked = number == asked
                parts = self._parts(content, f"messages[{number}].content")
                message = {**message, "content": joined(parts)}
            made.append(message)
        return made

    def _parts(self, content: Any, where: str) -> list[Part]:
        if not isinstance(content, list):
            raise InvalidRequest(f"{where} must be a text or a list of parts")
        made: list[Part] = []
        for number, given in enumerate(content):
            part = self._part(given, f"{where}[{number}]")
            if made and "text" not in made[-1] and "text" not in part:
                made.append(_LINE_END)
            made.append(part)
        return made

    def _part(self, part: Any, where: str) -> Part:
        try:
            return self._readable(part, where)
        except _Unreadable as unreadable:
            if self._ignored is None or self._is_asked:
                raise
            self._ignored.add(f"{where} ({unreadable.medium})")
            return {"type": "text", "text": f"[{unreadable.medium}: {unreadable.why}]"}

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
        medium, url = _read(data, where)
        if medium == "image":
            _require(self._model, "image")
            return self._picture(url, where)
        if medium == "audio":
            _require(self._model, "audio")
            return self._sound(url, where)
        must = f"{where} must be of type image/... or audio/..., not {medium}/..."
        raise _Unreadable(must, "file", "left out, no model can read it")

    def _picture(self, given: str, where: str) -> Part:
        return {"type": "image_url", "image_url": self._data_url("url", given, "image", where)}

    def _sound(self, given: str, where: str) -> Part:
        return {"type": "input_audio", "input_audio": self._data_url("data", given, "audio", where)}

    def _data_url(self, name: str, given: str, medium: Medium, where: str) -> dict[str, str]:
        """The `data:` URL of what is given as one or as bare base64, under its name; what is
        given as an address follows later."""
        if given[:5].lower() == "data:":
            found, url = _read(given, where)
            if found != medium:
                raise InvalidRequest(f"{where} must be of type {medium}/..., not {found}/...")
            return {name: url}
        if ":" not in given:
            return {name: f"data:{medium}/unknown;base64,{_base64(given, where)}"}
        if not given.lower().startswith(("http://", "https://")):
            raise InvalidRequest(f"{where} must be a data: URL or base64")
        if not self._fetches:
            raise InvalidRequest(
                f"{where} is an address elsewhere, from which this server fetches nothing "
                "(MYLLM_REMOTE_MEDIA); send a data: URL"
            )
        place: dict[str, str] = {}
        self.elsewhere.append(Elsewhere(place, name, given, medium))
        return place


def _is_little(messages: Messages) -> bool:
    """Whether the parts are few, and texts only."""
    lists = [content for each in messages if isinstance(content := each.get("content"), list)]
    return sum(map(len, lists)) <= _FEW_PARTS and not any(
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
        f"left out, this model {_CANNOT[medium]}",
    )


def _text(holder: Any, name: str, where: str) -> str:
    value = holder.get(name) if isinstance(holder, Mapping) else None
    if not isinstance(value, str):
        raise InvalidRequest(f"{where}.{name} must be a string")
    return value


def _read(url: str, where: str) -> tuple[str, str]:
    """The medium of a `data:` URL, and the same URL without what engines do not read."""
    comma = url.find(",", 0, _LONGEST_TYPE)
    found = _DATA_URL.fullmatch(url, 0, comma) if comma > 0 else None
    if found is None:
        raise InvalidRequest(f"{where} must be a data: URL, such as data:image/png;base64,iVBO...")
    medium = found[1].lower()
    return medium, f"data:{medium}/{found[2]};base64,{_base64(url[comma + 1 :], where)}"


def _base64(text: str, where: str) -> str:
    """`text` without the line ends that some programs write; an engine would stop at the first
    letter that it does not know. In pieces, between which others may run."""
    pieces, rest = [], b""
    for start in range(0, len(text), _AT_ONCE):
        try:
            piece = text[start : start + _AT_ONCE].encode("ascii").translate(None, _SPACES)
        except UnicodeEncodeError:
            raise _invalid_base64(where) from None
        rest += piece.translate(None, _LETTERS)
        if len(rest) > 2:
            raise _invalid_base64(where)
        pieces.append(piece)
    data = b"".join(pieces)
    if len(data) % 4 or rest.strip(b"=") or not data.endswith(rest):
        raise _invalid_base64(where)
    if not data:
        raise InvalidRequest(f"{where} must not be empty")
    return data.decode()


def _invalid_base64(where: str) -> InvalidRequest:
    return InvalidRequest(f"{where} is not valid base64")
