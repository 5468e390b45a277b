"""A model's `config.json`: what may stand in it, and a sentence for each thing that may not."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from myllm.durations import ALLOWED, parse_duration
from myllm.errors import InvalidModel
from myllm.models.read_errors import unreadable

_MAX_BYTES: Final = 1 << 20
_MAX_STOPS: Final = 64
ALIAS: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")
"""Other names of a model, as clients of other services know them, with their slashes and tags."""


@dataclass(frozen=True)
class EngineOptions:
    """Per-model engine settings; None leaves it to the server's settings.

    `keep_alive` is in seconds, negative for ever. A `pinned` model is never unloaded to make
    room or for being idle; a `preload` one is loaded when the server starts.
    """

    slots: int | None = None
    threads: int | None = None
    gpu_layers: int | None = None
    keep_alive: float | None = None
    pinned: bool = False
    preload: bool = False


@dataclass(frozen=True)
class ModelConfig:
    """The content of `config.json`; None: not told, so the GGUF header says it.

    `matryoshka`: the model was trained so that the beginning of a vector is a good one too.
    """

    family: str | None = None
    quantization: str | None = None
    context_size: int | None = None
    template: str | None = None
    description: str | None = None
    aliases: tuple[str, ...] = ()
    matryoshka: bool = False
    source: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    engine: EngineOptions = field(default_factory=EngineOptions)


class _Wrong(Exception):
    """What is allowed instead; the caller knows file and key."""


_Check = Callable[[Any], None]


def _number(low: float, high: float | None = None) -> _Check:
    def check(value: Any) -> None:
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        top = sys.float_info.max if high is None else high  # JSON's 1e999 is infinite
        if not (numeric and low <= value <= top):
            raise _Wrong(f"a number {_between(low, high)}")

    return check


def _whole(low: int, high: int | None = None) -> _Check:
    def check(value: Any) -> None:
        if not (type(value) is int and value >= low and (high is None or value <= high)):
            raise _Wrong(f"a whole number {_between(low, high)}")

    return check


def _between(low: float, high: float | None) -> str:
    return f"of at least {low}" if high is None else f"between {low} and {high}"


def _text(value: Any) -> None:
    if not (isinstance(value, str) and value.strip()):
        raise _Wrong("a text that is not empty")


def _duration(value: Any) -> None:
    if not isinstance(value, int | float | str):
        raise _Wrong(ALLOWED)
    try:
        parse_duration(value)
    except ValueError:
        raise _Wrong(ALLOWED) from None


def _yes_or_no(value: Any) -> None:
    if not isinstance(value, bool):
        raise _Wrong("true or false")


def _stops(value: Any) -> None:
    texts = isinstance(value, list) and all(isinstance(item, str) and item for item in value)
    if not texts or len(value) > _MAX_STOPS:
        raise _Wrong(f"a list of at most {_MAX_STOPS} texts that are not empty")


def _aliases(value: Any) -> None:
    names = isinstance(value, list) and all(
        isinstance(item, str) and ALIAS.fullmatch(item) for item in value
    )
    if not names:
        raise _Wrong("a list of names such as gpt-4o-mini")


def _object(value: Any) -> None:
    if not isinstance(value, dict):
        raise _Wrong("a JSON object")


_TOP: Final[dict[str, _Check]] = {
    "name": _text,
    "family": _text,
    "quantization": _text,
    "context_size": _whole(1, 1 << 30),
    "template": _text,
    "description": _text,
    "aliases": _aliases,
    "matryoshka": _yes_or_no,
    "source": _text,
    "parameters": _object,
    "engine": _object,
}
_PARAMETERS: Final[dict[str, _Check]] = {
    "temperature": _number(0.0, 2.0),
    "top_p": _number(0.0, 1.0),
    "top_k": _whole(0, 1 << 30),
    "min_p": _number(0.0, 1.0),
    "max_tokens": _whole(1, 1 << 30),
    "stop": _stops,
    "repeat_penalty": _number(0.0),
    "presence_penalty": _number(-2.0, 2.0),
    "frequency_penalty": _number(-2.0, 2.0),
    "seed": _whole(-1, (1 << 32) - 1),
}
_ENGINE: Final[dict[str, _Check]] = {
    "slots": _whole(1, 64),
    "threads": _whole(1, 1024),
    "gpu_layers": _whole(0, 100_000),
    "keep_alive": _duration,
    "pinned": _yes_or_no,
    "preload": _yes_or_no,
}


def read_config(path: Path) -> ModelConfig:
    """Read `path`; a file that is not there says nothing, and nor does a key set to null.

    Unknown keys are ignored at the top level, for what other programs keep there, and refused
    in `parameters` and `engine`, where they are typing errors. Raises InvalidModel, naming the
    file, the key and what is allowed.
    """
    content = _read_json(path)
    top = _checked(path, content, _TOP, "")
    parameters = _checked(path, top.pop("parameters", {}), _PARAMETERS, "parameters")
    engine = _checked(path, top.pop("engine", {}), _ENGINE, "engine")
    if "keep_alive" in engine:
        engine["keep_alive"] = parse_duration(engine["keep_alive"])
    top.pop("name", None)  # the folder's name is the model's name
    top["aliases"] = tuple(top.pop("aliases", ()))
    return ModelConfig(**top, parameters=parameters, engine=EngineOptions(**engine))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.exists() and not path.is_file():  # to open a pipe would wait for its writer
            raise InvalidModel(f"{path} is no regular file")
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as failure:
        raise unreadable(path, failure) from failure
    if len(raw) > _MAX_BYTES:
        raise InvalidModel(f"{path} is larger than 1 MiB, so it is no configuration")
    try:
        content = json.loads(raw, parse_constant=_refuse_constant)
        # JSON can spell the half of a surrogate pair, which no answer could repeat.
        json.dumps(content, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as failure:
        raise InvalidModel(f"{path} is not valid JSON: {failure}") from failure
    if not isinstance(content, dict):
        raise InvalidModel(f"{path} must hold a JSON object")
    return content


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _checked(
    path: Path, content: Mapping[str, Any], checks: Mapping[str, _Check], section: str
) -> dict[str, Any]:
    """The known keys that have a value, checked."""
    kept = {}
    for key, value in content.items():
        where = f"{section}.{key}" if section else key
        check = checks.get(key)
        if check is None:
            if section:
                raise InvalidModel(f"{path}: {where} is unknown; known are {', '.join(checks)}")
            continue
        if value is None:
            continue
        try:
            check(value)
        except _Wrong as allowed:
            raise InvalidModel(f"{path}: {where} must be {allowed}") from None
        kept[key] = value
    return kept
