"""A bounded reader of GGUF headers: what a model is, without reading its vocabulary.

A GGUF file consists of: magic number, version, counts; key-value pairs; descriptions of the
tensors; padding; the tensors' data (llama.cpp, `ggml/src/gguf.cpp`). Every string and array is
preceded by its length, so a corrupt file could demand any amount of memory or time. Therefore
each length is checked against the limits below, and by BoundedReader against the rest of the
file, before anything is read.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import BinaryIO, Final, Protocol, TypeVar

from myllm.errors import InvalidModel
from myllm.models.architectures import TENSOR_BLOCKS
from myllm.models.bounded_reader import U32, U64, WINDOW, BoundedReader
from myllm.models.gguf_header import Header, header_from
from myllm.models.projector import Projector, projector_from
from myllm.models.read_errors import PULL_AGAIN, unreadable

_MAGIC: Final = b"GGUF"
_MAX_PAIRS: Final = 1 << 16
_MAX_TENSORS: Final = 1 << 16
_MAX_DIMENSIONS: Final = 4
_MAX_NAME: Final = 1 << 16
_MAX_STRING: Final = 1 << 24
_MAX_ARRAY: Final = 1 << 24
_KEPT_ARRAY: Final = 1024
"""Number arrays up to this length are kept: they are per-layer figures, not vocabularies."""

_SAMPLES: Final = 16
_SAMPLE_BYTES: Final = 4096

_SCALARS: Final = {
    0: Struct("<B"),
    1: Struct("<b"),
    2: Struct("<H"),
    3: Struct("<h"),
    4: U32,
    5: Struct("<i"),
    6: Struct("<f"),
    7: Struct("<?"),
    10: U64,
    11: Struct("<q"),
    12: Struct("<d"),
}
_STRING: Final = 8
_ARRAY: Final = 9


@dataclass(frozen=True)
class ArrayLength:
    """Represents an array that was skipped."""

    length: int


_Made = TypeVar("_Made", covariant=True)
Value = str | int | float | bool | ArrayLength | tuple[int | float | bool, ...]


def read_header(path: Path) -> Header:
    """Read the header of the model in `path`; takes milliseconds and little memory.

    Raises InvalidModel, naming the file and what is wrong with it, unless this is a whole GGUF
    file with tensors.
    """
    return _read_file(path, header_from)


def read_projector(path: Path) -> Projector:
    """Read the header of the projector in `path`, by which a model sees or hears."""
    return _read_file(path, projector_from)


class _Maker(Protocol[_Made]):
    """Builds an object from the key-value pairs of the file."""

    def __call__(
        self,
        path: Path,
        values: Mapping[str, object],
        *,
        parameter_count: int,
        tensor_bytes: int,
        digest: str,
    ) -> _Made: ...


def _read_file(path: Path, make: _Maker[_Made]) -> _Made:
    try:
        with path.open("rb") as file:
            return _read(path, file, make)
    except OSError as failure:
        raise unreadable(path, failure) from failure


def _read(path: Path, file: BinaryIO, make: _Maker[_Made]) -> _Made:
    size = os.fstat(file.fileno()).st_size
    source = BoundedReader(path, file, size)
    tensor_count, pair_count = _read_counts(source)
    values = dict(_read_pair(source) for _ in range(pair_count))
    parts = values.get("split.count", 0)
    if tensor_count == 0 and not (isinstance(parts, int) and parts > 1):
        raise InvalidModel(
            f"{path} holds only a vocabulary: it has no tensors, so it is not a model"
        )
    parameters, end_of_data = _read_tensors(source, tensor_count)
    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20:
        raise source.corrupt("its alignment is not a valid number")
    data_start = -(-source.position // alignment) * alignment
    if tensor_count and data_start + end_of_data > size:
        raise InvalidModel(
            f"{path} is truncated: {_megabytes(size, data_start + end_of_data)}; {PULL_AGAIN}"
        )
    return make(
        path,
        values,
        parameter_count=parameters,
        tensor_bytes=end_of_data,
        digest=_digest(file, source.position, data_start, size),
    )


def _read_counts(source: BoundedReader) -> tuple[int, int]:
    """Check magic and version; return the numbers of tensors and of key-value pairs."""
    if source.size == 0:
        raise InvalidModel(f"{source.path} is empty; {PULL_AGAIN}")
    if source.take(4, "its magic number") != _MAGIC:
        raise InvalidModel(
            f"{source.path} is not a GGUF file: it does not begin with 'GGUF'; {PULL_AGAIN}"
        )
    version = source.number(U32, "its version")
    if version not in (2, 3):
        old_or_foreign = "big-endian" if version & 0xFFFF == 0 else f"version {version}"
        raise InvalidModel(
            f"{source.path} is a {old_or_foreign} GGUF file; only little-endian versions 2 and 3"
            " are supported"
        )
    tensors = source.number(U64, "its number of tensors")
    pairs = source.number(U64, "its number of fields")
    if tensors > _MAX_TENSORS or pairs > _MAX_PAIRS:
        raise source.corrupt(f"it claims {tensors} tensors and {pairs} fields")
    return tensors, pairs


def _read_pair(source: BoundedReader) -> tuple[str, Value]:
    key = source.string("the name of a field", _MAX_NAME)
    kind = source.number(U32, f"the type of {key}")
    if kind == _STRING:
        return key, source.string(key, _MAX_STRING)
    if kind == _ARRAY:
        return key, _read_array(source, key)
    scalar = _SCALARS.get(kind)
    if scalar is None:
        raise source.corrupt(f"{key} has the unknown type {kind}")
    value: int | float | bool = scalar.unpack(source.take(scalar.size, key))[0]
    return key, value


def _read_array(source: BoundedReader, key: str) -> Value:
    """Keep a short array of numbers, skip any other."""
    kind = source.number(U32, f"the type of {key}")
    length = source.number(U64, f"the length of {key}")
    if length > _MAX_ARRAY:
        raise source.corrupt(f"{key} claims {length} elements")
    if kind == _STRING:
        source.skip_strings(length, key)
        return ArrayLength(length)
    scalar = _SCALARS.get(kind)
    if scalar is None:
        raise source.corrupt(f"{key} is an array of the unknown type {kind}")
    if length > _KEPT_ARRAY:
        source.skip(length * scalar.size, key)
        return ArrayLength(length)
    data = source.take(length * scalar.size, key)
    return tuple(element[0] for element in scalar.iter_unpack(data))


def _read_tensors(source: BoundedReader, count: int) -> tuple[int, int]:
    """Return the number of weights, and where the last tensor ends in the data section.

    The size of a tensor of a type that is newer than this table counts as nothing: such a file
    is only found truncated when a tensor begins after its end.
    """
    parameters = end = 0
    for _ in range(count):
        name = source.string("the name of a tensor", _MAX_NAME)
        dimensions = source.number(U32, f"the shape of {name}")
        if not 0 < dimensions <= _MAX_DIMENSIONS:
            raise source.corrupt(f"the tensor {name} has {dimensions} dimensions")
        weights = math.prod(source.number(U64, f"the shape of {name}") for _ in range(dimensions))
        if weights >= 1 << 63:
            raise source.corrupt(f"the tensor {name} has {weights} weights")
        kind = source.number(U32, f"the type of {name}")
        offset = source.number(U64, f"the offset of {name}")
        per_block, block_bytes = TENSOR_BLOCKS.get(kind, (1, 0))
        parameters += weights
        end = max(end, offset + -(-weights // per_block) * block_bytes)
    return parameters, end


def _digest(file: BinaryIO, header_end: int, data_start: int, size: int) -> str:
    """sha256 over the file's size, its header, and samples of the data spread over the whole file.

    It distinguishes models and their versions without reading gigabytes. It does not prove that
    every byte is right: the checksum at the end of a pull does that.
    """
    digest = hashlib.sha256(U64.pack(size))
    file.seek(0)
    left = header_end
    while left and (chunk := file.read(min(left, WINDOW))):
        digest.update(chunk)
        left -= len(chunk)
    for sample in range(_SAMPLES):
        last = max(size - _SAMPLE_BYTES - data_start, 0)
        file.seek(data_start + last * sample // (_SAMPLES - 1))
        digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _megabytes(has: int, needs: int) -> str:
    if needs < 10_000_000:
        return f"{has:,} bytes of {needs:,}"
    return f"{has / 1e6:,.0f} MB of {needs / 1e6:,.0f} MB"
