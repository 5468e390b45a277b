"""The keys of a model's `config.json`; `config_file` reads them.

`scripts/config_reference.py` writes the documentation's table of keys and the JSON Schema for
editors from these classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from myllm.durations import ALLOWED
from myllm.settings_types import Duration

_MAX_STOPS: Final = 64
_LARGEST: Final = 1 << 30
_STRICT: Final = ConfigDict(strict=True, allow_inf_nan=False)  # JSON's 1e999 is infinite


def _key(allowed: str, description: str, **limits: Any) -> Any:
    """The description and limits of a key; editors show `errorMessage`, and so do our errors."""
    message = f"must be {allowed}"
    return Field(description=description, json_schema_extra={"errorMessage": message}, **limits)


def _whole(low: int, high: int, description: str) -> Any:
    return _key(f"a whole number between {low} and {high}", description, ge=low, le=high)


def _number(low: float, high: float | None, description: str) -> Any:
    between = f"of at least {low}" if high is None else f"between {low} and {high}"
    return _key(f"a number {between}", description, ge=low, le=high)


def _text(description: str) -> Any:
    return _key("a text that is not empty", description)


def _yes_or_no(description: str) -> Any:
    return _key("true or false", description)


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is blank")
    return text


def _as_written(content: Any, check: Callable[[Any], object]) -> Any:
    """Check the section `content`; keep its order and its numbers: an integer stays an integer."""
    check(content)
    return {key: value for key, value in content.items() if value is not None}


_Text = Annotated[
    str, AfterValidator(_not_blank), WithJsonSchema({"type": "string", "pattern": r"\S"})
]
_Stop = Annotated[str, Field(min_length=1)]
_Alias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")]
_KeepAlive = Annotated[
    Duration,
    WithJsonSchema(
        {
            "type": ["number", "string"],
            "pattern": r"^-?([0-9]+(\.[0-9]+)?|([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+)$",
        }
    ),
]


class SamplingDefaults(TypedDict, total=False):
    """What requests leave out: a dictionary, because each request merges its own options in."""

    __pydantic_config__ = _STRICT | ConfigDict(extra="forbid")  # type: ignore[misc]

    temperature: Annotated[float | None, _number(0.0, 2.0, "Higher is more random.")]
    top_p: Annotated[float | None, _number(0.0, 1.0, "Nucleus sampling threshold.")]
    top_k: Annotated[int | None, _whole(0, _LARGEST, "Only the k most likely tokens; 0: all.")]
    min_p: Annotated[
        float | None, _number(0.0, 1.0, "Least probability, relative to the most likely token.")
    ]
    max_tokens: Annotated[int | None, _whole(1, _LARGEST, "Longest answer, in tokens.")]
    stop: Annotated[
        list[_Stop] | None,
        _key(
            f"a list of at most {_MAX_STOPS} texts that are not empty",
            "The answer ends before any of these.",
            max_length=_MAX_STOPS,
        ),
    ]
    repeat_penalty: Annotated[float | None, _number(0.0, None, "Over 1: fewer repetitions.")]
    presence_penalty: Annotated[
        float | None, _number(-2.0, 2.0, "Against tokens that have occurred.")
    ]
    frequency_penalty: Annotated[
        float | None, _number(-2.0, 2.0, "Against tokens by how often they have occurred.")
    ]
    seed: Annotated[
        int | None,
        _whole(-1, (1 << 32) - 1, "The same seed gives the same answer; -1: a new one each time."),
    ]


class _Section(BaseModel):
    """Keys of a JSON object; one that is null counts as left out."""

    model_config = _STRICT | ConfigDict(frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, content: Any) -> Any:
        if not isinstance(content, Mapping):
            return content
        known = cls.model_fields
        return {key: each for key, each in content.items() if each is not None or key not in known}


class EngineOptions(_Section):
    """Engine settings of one model; None leaves the choice to the server's settings.

    `keep_alive` is in seconds, negative forever.
    """

    model_config = ConfigDict(extra="forbid")

    slots: Annotated[
        int | None, _whole(1, 64, "Requests that the model answers at the same time.")
    ] = None
    threads: Annotated[int | None, _whole(1, 1024, "CPU threads.")] = None
    gpu_layers: Annotated[
        int | None, _whole(0, 100_000, "Layers on GPUs; 0: none. Default: as many as fit.")
    ] = None
    keep_alive: Annotated[
        _KeepAlive | None, _key(ALLOWED, "How long the model stays loaded while it is idle.")
    ] = None
    pinned: Annotated[
        bool,
        _yes_or_no("Whether the model stays loaded when it is idle or others need its memory."),
    ] = False
    preload: Annotated[bool, _yes_or_no("Whether the model is loaded when the server starts.")] = (
        False
    )


class ModelConfig(_Section):
    """The content of `config.json`; None leaves the value to the GGUF or to the settings."""

    name: Annotated[_Text | None, _text("Ignored: the folder's name is the model's name.")] = None
    family: Annotated[
        _Text | None, _text("Shown as the family. Default: the GGUF's architecture.")
    ] = None
    quantization: Annotated[
        _Text | None, _text("Shown as the quantization. Default: the GGUF's.")
    ] = None
    context_size: Annotated[
        int | None,
        _whole(
            1,
            _LARGEST,
            "Tokens that one conversation gets, but never more than the model was trained for; "
            "the engine's cache holds that times `slots`.",
        ),
    ] = None
    template: Annotated[
        _Text | None,
        _text(
            "The chat template: one of llama.cpp's, such as `chatml`, or a `.jinja` file in the "
            "folder. Default: the GGUF's."
        ),
    ] = None
    description: Annotated[_Text | None, _text("What the model is good for.")] = None
    aliases: Annotated[
        tuple[_Alias, ...],
        _key(
            "a list of names such as gpt-4o-mini",
            "Other names under which clients find the model.",
            strict=False,  # a list becomes a tuple
        ),
    ] = ()
    matryoshka: Annotated[
        bool,
        _yes_or_no(
            "Whether the first numbers of the model's embeddings are embeddings, too, so that "
            "requests may ask for fewer `dimensions`."
        ),
    ] = False
    source: Annotated[_Text | None, _text("Where the model came from; `myllm pull` writes it.")] = (
        None
    )
    parameters: Annotated[
        SamplingDefaults,
        WrapValidator(_as_written),
        _key("a JSON object", "Sampling options for requests that leave them out."),
    ] = {}
    engine: Annotated[EngineOptions, _key("a JSON object", "How the model's engine runs.")] = (
        EngineOptions()
    )


@cache
def key_schemas() -> dict[str, dict[str, dict[str, Any]]]:
    """The JSON Schema of each key, by section; the section of the top level is the empty text."""
    sections = {"": ModelConfig, "parameters": SamplingDefaults, "engine": EngineOptions}
    return {
        name: TypeAdapter(section).json_schema()["properties"] for name, section in sections.items()
    }
