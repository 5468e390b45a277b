"""Pictures and sounds in messages: checked, and brought into the one form that engines get.

An engine would read files and fetch URLs that it is asked to, so all that reaches it is a
`data:` URL that was written here.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from myllm.errors import InvalidRequest
from myllm.models.projector import Medium
from myllm.models.registry import Model

Messages = list[dict[str, Any]]
"""Messages in OpenAI's form, whatever may be in them."""

_DATA_URL: Final = re.compile(r"data:(\w+)/([\w.+-]+)(?:;[\w.+=-]+)*;base64,(.*)", re.I | re.S)
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

    def __init__(self, find: Callable[[str], Model], remote: Remote | None) -> None:
        self._find = find
        self._remote = remote

    async def checked(self, model: str, messages: Messages) -> Messages:
        """`messages` as the engine of `model` can have them: parts are texts, pictures and
        sounds, the latter as `data:` URLs.

        Raises InvalidRequest for any other part, for a medium that the model has no encoder
        for, and for what cannot be fetched; ModelNotFound and InvalidModel.
        """
        if all(isinstance(message.get("content"), str | None) for message in messages):
            return messages
        reading = _Reading(self._find(model), fetches=self._remote is not None)
        made = [
            message
            if isinstance(content := message.get("content"), str | None)
            else message | {"content": reading.parts(content, f"messages[{number}].content")}
            for number, message in enumerate(messages)
        ]
        if self._remote is not None:
            await self._remote.fill(reading.elsewhere)
        return made


def carried(messages: Messages) -> Messages:
    """`messages` of a conversation that may go on with any model: their pictures and sounds are
    with them, because nobody looks at an address in a stored message again before an engine does.

    Raises InvalidRequest for any other part.
    """
    reading = _Reading(None, fetches=False)
    return [
        message
        if isinstance(content := message.get("content"), str | None)
        else message | {"content": reading.parts(content, f"messages[{number}].content")}
        for number, message in enumerate(messages)
    ]


class _Reading:
    """Goes through the parts of one request, for a model or for any; `elsewhere` collects what must
    be fetched."""

    def __init__(self, model: Model | None, fetches: bool) -> None:
        self._model = model
        self._fetches = fetches
        self.elsewhere: list[Elsewhere] = []

    def parts(self, content: Any, where: str) -> Messages:
        if not isinstance(content, list):
            raise InvalidRequest(f"{where} must be a text or a list of parts")
        made: Messages = []
        for number, given in enumerate(content):
            part = self._part(given, f"{where}[{number}]")
            if made and "text" not in made[-1] and "text" not in part:
                made.append(_LINE_END)
            made.append(part)
        return made

    def _part(self, part: Any, where: str) -> dict[str, Any]:
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

    def _file(self, data: str, where: str) -> dict[str, Any]:
        """A file's medium is told by the type in its `data:` URL."""
        where = f"{where}.file.file_data"
        medium, url = _read(data, where)
        if medium == "image":
            _require(self._model, "image")
            return self._picture(url, where)
        if medium == "audio":
            _require(self._model, "audio")
            return self._sound(url, where)
        raise InvalidRequest(f"{where} must be of type image/... or audio/..., not {medium}/...")

    def _picture(self, given: str, where: str) -> dict[str, Any]:
        return {"type": "image_url", "image_url": self._data_url("url", given, "image", where)}

    def _sound(self, given: str, where: str) -> dict[str, Any]:
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


def _require(model: Model | None, medium: Medium) -> None:
    if model is None or medium in model.input:
        return
    why = "it has no projector (mmproj-*.gguf) beside its GGUF"
    if model.projector is not None:
        why = f"its projector ({model.projector.path.name}) has no {_ENCODER[medium]} encoder"
    raise InvalidRequest(f"Model '{model.name}' {_CANNOT[medium]}: {why}")


def _text(holder: Any, name: str, where: str) -> str:
    value = holder.get(name) if isinstance(holder, Mapping) else None
    if not isinstance(value, str):
        raise InvalidRequest(f"{where}.{name} must be a string")
    return value


def _read(url: str, where: str) -> tuple[str, str]:
    """The medium of a `data:` URL, and the same URL without what engines do not read."""
    found = _DATA_URL.fullmatch(url)
    if found is None:
        raise InvalidRequest(f"{where} must be a data: URL, such as data:image/png;base64,iVBO...")
    medium = found[1].lower()
    return medium, f"data:{medium}/{found[2]};base64,{_base64(found[3], where)}"


def _base64(text: str, where: str) -> str:
    """`text` without the line ends that some programs write; an engine would stop at the first
    letter that it does not know."""
    text = "".join(text.split())
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{where} is no valid base64") from None
    if not data:
        raise InvalidRequest(f"{where} must not be empty")
    return text
