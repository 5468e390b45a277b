"""The header reader: what it reads, what it refuses, and how fast."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import gguf
import pytest

from myllm.errors import InvalidModel
from myllm.models.gguf import read_header
from tests.ggufs import TEMPLATE, raw_header, raw_string, write_header, write_vocabulary

STRING, ARRAY, UINT32 = 8, 9, 4


def problem(path: Path, content: bytes | None = None) -> str:
    """The reason why `path` is refused, which names the file."""
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidModel) as failure:
        read_header(path)
    assert str(path) in failure.value.detail
    return failure.value.detail


def pair(key: str, kind: int, value: bytes) -> bytes:
    return raw_string(key) + struct.pack("<I", kind) + value


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def test_reads_the_header_of_a_model(file: Path) -> None:
    header = read_header(write_header(file))
    assert header.architecture == "llama"
    assert header.name == "Tiny"
    assert header.quantization == "Q4_K_M"
    assert header.context_length == 2048
    assert header.layers == 2
    assert header.heads == (4, 4)
    assert header.heads_kv == (2, 2)
    assert header.key_length == header.value_length == 16
    assert header.vocabulary_size == 300
    assert header.chat_template == TEMPLATE
    assert header.parameter_count == 2 * 300 * 64
    assert header.tensor_bytes == 2 * 300 * 64 * 4
    assert header.cache_kind == "dense"
    assert not header.is_embedding_only


def test_agrees_with_the_gguf_package(file: Path) -> None:
    header, other = read_header(write_header(file)), gguf.GGUFReader(str(file))
    assert header.parameter_count == sum(int(tensor.n_elements) for tensor in other.tensors)
    assert header.tensor_bytes == sum(int(tensor.n_bytes) for tensor in other.tensors)


def test_head_counts_may_differ_per_layer(file: Path) -> None:
    header = read_header(write_header(file, attention__head_count_kv=[2, 0]))
    assert header.heads == (4, 4)
    assert header.heads_kv == (2, 0)


@pytest.mark.parametrize(
    ("architecture", "fields", "kind"),
    [
        ("llama", {}, "dense"),
        ("gemma2", {}, "swa"),
        ("gemma3", {"attention__sliding_window": 512}, "swa"),
        ("phi3", {"attention__sliding_window": 2047}, "dense"),
        ("mamba", {}, "recurrent"),
        ("jamba", {}, "recurrent"),
    ],
)
def test_cache_kind_by_architecture(
    file: Path, architecture: str, fields: dict[str, int], kind: str
) -> None:
    assert read_header(write_header(file, architecture, **fields)).cache_kind == kind


@pytest.mark.parametrize(
    ("architecture", "fields", "embeds"),
    [
        ("bert", {"pooling_type": 2}, True),
        ("nomic-bert", {}, True),
        ("qwen3", {"pooling_type": 3}, True),
        ("qwen3", {"pooling_type": 4}, True),
        ("qwen3", {"pooling_type": 0}, False),
        ("qwen3", {}, False),
    ],
)
def test_which_models_only_embed(
    file: Path, architecture: str, fields: dict[str, int], embeds: bool
) -> None:
    assert read_header(write_header(file, architecture, **fields)).is_embedding_only is embeds


def test_a_digest_is_stable_and_sees_a_change_of_the_weights(file: Path) -> None:
    before = read_header(write_header(file)).digest
    assert read_header(file).digest == before
    content = bytearray(file.read_bytes())
    content[-1000:] = bytes(1000)
    file.write_bytes(content)
    assert read_header(file).digest != before


def test_a_large_vocabulary_is_skipped(file: Path) -> None:
    tokens = [f"token{number}" for number in range(150_000)]
    write_header(file, tokenizer__ggml__tokens=tokens, tokenizer__ggml__merges=tokens)
    began = time.perf_counter()
    header = read_header(file)
    assert time.perf_counter() - began < 1.0
    assert header.vocabulary_size == 150_000


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"GG", "ends within its magic number"),
        (b"\x7fELF" + bytes(100), "is not a GGUF file"),
        (bytes(range(256)) * 100, "is not a GGUF file"),
        (b"GGUF", "ends within its version"),
        (raw_header(version=1), "version 1"),
        (raw_header(version=0x03000000), "big-endian"),
        (raw_header(tensors=1 << 60), "claims"),
        (raw_header(pairs=1 << 60), "claims"),
        (raw_header(pairs=3), "ends within the name of a field"),
        (raw_header(pairs=1, rest=raw_string("x", 1 << 62)), "claims to be"),
        (raw_header(pairs=1, rest=raw_string("x", 1000)), "ends within the name of a field"),
        (raw_header(pairs=1, rest=pair("a.b", 77, b"")), "unknown type 77"),
        (raw_header(pairs=1, rest=pair("a.b", STRING, raw_string("", 1 << 40))), "claims to be"),
        (
            raw_header(pairs=1, rest=pair("a.b", ARRAY, struct.pack("<IQ", UINT32, 1 << 50))),
            "a.b claims",
        ),
        (
            raw_header(pairs=1, rest=pair("a.b", ARRAY, struct.pack("<IQ", UINT32, 1 << 20))),
            "ends within a.b",
        ),
        (
            raw_header(pairs=1, rest=pair("a.b", ARRAY, struct.pack("<IQ", STRING, 1 << 20))),
            "ends within a.b",
        ),
        (
            raw_header(pairs=1, rest=pair("a.b", ARRAY, struct.pack("<IQ", ARRAY, 2))),
            "unknown type 9",
        ),
        (raw_header(tensors=1, rest=raw_string("t") + struct.pack("<I", 9)), "9 dimensions"),
        (
            raw_header(tensors=1, rest=raw_string("t") + struct.pack("<IQQ", 2, 1 << 62, 1 << 62)),
            "weights",
        ),
    ],
)
def test_broken_files_are_refused_with_a_reason(file: Path, content: bytes, says: str) -> None:
    began = time.perf_counter()
    assert says in problem(file, content)
    assert time.perf_counter() - began < 0.5


def test_a_string_in_an_array_must_end_within_the_file(file: Path) -> None:
    strings = raw_string("good") + raw_string("bad", 1 << 63)
    array = struct.pack("<IQ", STRING, 3) + strings
    assert "ends within a.b" in problem(file, raw_header(pairs=1, rest=pair("a.b", ARRAY, array)))


def test_a_truncated_file_is_refused_with_numbers(file: Path) -> None:
    whole = write_header(file).read_bytes()
    half = len(whole) // 2
    assert f"is truncated: {half:,} bytes of {len(whole):,}" in problem(file, whole[:half])


def test_every_truncated_file_is_refused(file: Path) -> None:
    whole = write_header(file).read_bytes()
    for length in range(0, len(whole) - 32, 997):
        problem(file, whole[:length])


def test_a_vocabulary_is_not_a_model(file: Path) -> None:
    assert "holds only a vocabulary" in problem(write_vocabulary(file))


def test_a_projector_is_not_a_model(file: Path) -> None:
    assert "goes with one" in problem(write_header(file, "clip"))


def test_a_file_without_an_architecture_is_refused(file: Path) -> None:
    content = write_header(file).read_bytes().replace(b"general.arch", b"general.ARCH")
    assert "architecture" in problem(file, content)


def test_a_folder_is_not_a_model(tmp_path: Path) -> None:
    assert "cannot be read" in problem(tmp_path)
