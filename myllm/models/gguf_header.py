"""The header of a model's GGUF file, with names instead of keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from myllm.errors import InvalidModel
from myllm.models.architectures import (
    DEFAULT_WINDOWS,
    EMBEDDING_ONLY,
    MEMORYLESS,
    NOT_MODELS,
    POOLING_TYPES,
    QUANTIZATIONS,
    RECURRENT,
    WINDOW_IGNORED,
)

CacheKind = Literal["none", "dense", "swa", "recurrent"]


@dataclass(frozen=True)
class Header:
    """One GGUF file's header. Numbers that the file does not give are 0, texts None.

    `context_length` is what the model was trained for, in tokens; `heads` and `heads_kv` have
    one number per layer; `key_length` and `value_length` are the sizes of one head;
    `recurrent_state` is the number of f32 values that one conversation keeps per layer besides
    keys and values; `tensor_bytes` is the length of the tensors' data. `digest` is cheap and
    stable, see `gguf.read_header`. Of a split model, the last three cover all parts.
    """

    architecture: str
    name: str | None
    quantization: str
    context_length: int
    layers: int
    embedding_length: int
    feed_forward_length: int
    heads: tuple[int, ...]
    heads_kv: tuple[int, ...]
    key_length: int
    value_length: int
    vocabulary_size: int
    chat_template: str | None
    pooling: str | None
    sliding_window: int
    recurrent_state: int
    split_count: int
    parameter_count: int
    tensor_bytes: int
    digest: str

    @property
    def is_embedding_only(self) -> bool:
        """It turns text into vectors (or scores) and is not meant to generate."""
        return self.architecture in EMBEDDING_ONLY or self.pooling not in (None, "none")

    @property
    def is_reranker(self) -> bool:
        """It scores how well a document answers a query."""
        return self.pooling == "rank"

    @property
    def cache_kind(self) -> CacheKind:
        """How the model remembers: this decides whether a saved conversation can be restored.

        An unknown architecture with a window counts as `swa`, whose saved states are not used.
        """
        if self.architecture in MEMORYLESS:
            return "none"
        if self.architecture in RECURRENT:
            return "recurrent"
        return "swa" if self.sliding_window else "dense"

    @property
    def state_problem(self) -> str | None:
        """Why this model cannot use the saved state of a conversation; None if it can.

        Keys and values of a whole conversation can be restored, and so can a running state, which
        only an exact continuation can follow. A sliding window forgets what it has passed.
        """
        if self.is_embedding_only:
            return "the model does not converse"
        if self.cache_kind == "swa":
            return f"the model's sliding window of {self.sliding_window} tokens forgets its states"
        return None


UNKNOWN = Header(
    architecture="unknown",
    name=None,
    quantization="unknown",
    context_length=0,
    layers=0,
    embedding_length=0,
    feed_forward_length=0,
    heads=(),
    heads_kv=(),
    key_length=0,
    value_length=0,
    vocabulary_size=0,
    chat_template=None,
    pooling=None,
    sliding_window=0,
    recurrent_state=0,
    split_count=0,
    parameter_count=0,
    tensor_bytes=0,
    digest="",
)
"""The header of a file that could not be read."""


def header_from(
    path: Path,
    values: Mapping[str, object],
    *,
    parameter_count: int,
    tensor_bytes: int,
    digest: str,
) -> Header:
    """Build the header from the key-value pairs of the file `path`.

    Raises InvalidModel when the file names no architecture, or only complements a model.
    """
    fields = _Fields(values)
    architecture = fields.prefix = _architecture(path, fields)
    layers = min(fields.number("block_count"), 4096)
    heads = fields.per_layer("attention.head_count", layers)
    heads_kv = fields.per_layer("attention.head_count_kv", layers) or heads
    embedding_length = fields.number("embedding_length")
    feed_forward = fields.per_layer("feed_forward_length", 1)
    most_heads: int = max(heads, default=0)
    head_size = embedding_length // most_heads if most_heads else 0
    return Header(
        architecture=architecture,
        name=fields.text("general.name"),
        quantization=QUANTIZATIONS.get(fields.number("general.file_type", -1), "unknown"),
        context_length=fields.number("context_length"),
        layers=layers,
        embedding_length=embedding_length,
        feed_forward_length=max(feed_forward) if feed_forward else 0,
        heads=heads,
        heads_kv=heads_kv,
        key_length=fields.number("attention.key_length") or head_size,
        value_length=fields.number("attention.value_length") or head_size,
        vocabulary_size=fields.length("tokenizer.ggml.tokens") or fields.number("vocab_size"),
        chat_template=fields.text("tokenizer.chat_template"),
        pooling=POOLING_TYPES.get(fields.number("pooling_type", -1)),
        sliding_window=_sliding_window(fields, architecture),
        recurrent_state=_recurrent_state(fields, embedding_length),
        split_count=fields.number("split.count"),
        parameter_count=parameter_count,
        tensor_bytes=tensor_bytes,
        digest=digest,
    )


def _architecture(path: Path, fields: _Fields) -> str:
    """The architecture; "" for the later parts of a split model, which carry only tensors."""
    architecture = fields.text("general.architecture")
    if architecture is None:
        if fields.number("split.no") == 0:
            raise InvalidModel(f"{path} does not specify its architecture (general.architecture)")
        architecture = ""
    kind = fields.text("general.type")
    if architecture in NOT_MODELS or (kind is not None and kind in NOT_MODELS):
        raise InvalidModel(
            f"{path} is not a model but a file that goes with one ({kind or 'clip'})"
        )
    return architecture


def _sliding_window(fields: _Fields, architecture: str) -> int:
    if architecture in WINDOW_IGNORED:
        return 0
    default = DEFAULT_WINDOWS.get(architecture, 0)
    return fields.number("attention.sliding_window") or default


def _recurrent_state(fields: _Fields, embedding_length: int) -> int:
    """n_embd_r + n_embd_s of llama.cpp's `src/llama-hparams.cpp`, for Mamba and RWKV."""
    wkv_head = fields.number("wkv.head_size")
    if wkv_head:
        return embedding_length * (fields.number("token_shift_count", 2) + wkv_head)
    inner, state = fields.number("ssm.inner_size"), fields.number("ssm.state_size")
    groups, kernel = fields.number("ssm.group_count"), fields.number("ssm.conv_kernel")
    return max(kernel - 1, 0) * (inner + 2 * groups * state) + state * inner


class _Fields:
    """The key-value pairs by type; a value of the wrong type counts as missing.

    A key is looked up as it is, then with the architecture (`prefix`) in front.
    """

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values
        self.prefix = ""

    def _get(self, key: str) -> object:
        value = self._values.get(key)
        return self._values.get(f"{self.prefix}.{key}") if value is None else value

    def text(self, key: str) -> str | None:
        value = self._get(key)
        return value if isinstance(value, str) and value else None

    def number(self, key: str, default: int = 0) -> int:
        value = self._get(key)
        return value if type(value) is int and value >= 0 else default

    def length(self, key: str) -> int:
        value = self._get(key)
        if isinstance(value, tuple):
            return len(value)
        length = getattr(value, "length", 0)
        return length if isinstance(length, int) else 0

    def per_layer(self, key: str, layers: int) -> tuple[int, ...]:
        """One number for each layer; the file has one for all of them, or an array."""
        value = self._get(key)
        if isinstance(value, tuple):
            return tuple(item for item in value if type(item) is int and item >= 0)
        return (value,) * layers if type(value) is int and value >= 0 else ()
