"""Small GGUF files for tests: headers of any shape, and models that an engine can run.

`write_header` needs no tokenizer: its files are for whatever only reads headers.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


def write_header(path: Path, architecture: str = "llama", **fields: Any) -> Path:
    """Write a whole GGUF with the shape of a small llama and a vocabulary of 300 tokens.

    `fields` are more key-value pairs (`__` stands for a dot, and keys that do not begin with
    `general`, `tokenizer` or `split` belong to the architecture); None leaves a default out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(str(path), architecture)
    pairs: dict[str, Any] = {
        "context_length": 2048,
        "embedding_length": 64,
        "block_count": 2,
        "feed_forward_length": 128,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "general.name": "Tiny",
        "general.file_type": 15,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [f"token{number}" for number in range(300)],
        "tokenizer.chat_template": TEMPLATE,
    }
    pairs |= {name.replace("__", "."): value for name, value in fields.items()}
    for key, value in pairs.items():
        if value is not None:
            own = key.startswith(("general.", "tokenizer.", "split."))
            _add(writer, key if own else f"{architecture}.{key}", value)
    random = np.random.default_rng(1)
    for name, shape in (("token_embd.weight", (300, 64)), ("output.weight", (300, 64))):
        writer.add_tensor(name, random.standard_normal(shape, dtype=np.float32))
    _write(writer)
    return path


def write_vocabulary(path: Path) -> Path:
    """Write a GGUF without tensors."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_token_list([f"token{number}" for number in range(300)])
    _write(writer)
    return path


def write_split(folder: Path, stem: str = "big", count: int = 3) -> list[Path]:
    """Write a model in `count` parts the way llama-gguf-split does."""
    paths = [folder / f"{stem}-{n:05}-of-{count:05}.gguf" for n in range(1, count + 1)]
    write_header(paths[0], split__no=0, split__count=count)
    for number, path in enumerate(paths[1:], start=1):
        writer = gguf.GGUFWriter(str(path), "")
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", count)
        writer.add_tensor(f"blk.{number}.weight", np.zeros((32, 32), dtype=np.float32))
        _write(writer)
    return paths


def raw_header(*, version: int = 3, tensors: int = 0, pairs: int = 0, rest: bytes = b"") -> bytes:
    """The first bytes of a GGUF, with whatever counts a test wants to claim."""
    return b"GGUF" + struct.pack("<IQQ", version, tensors, pairs) + rest


def raw_string(text: str, length: int | None = None) -> bytes:
    """A GGUF string, with its true length or a claimed one."""
    data = text.encode()
    return struct.pack("<Q", len(data) if length is None else length) + data


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, list):
        writer.add_array(key, value)
    else:
        writer.add_uint32(key, value)


def _write(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
