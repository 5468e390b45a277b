"""Small GGUF files for tests: headers of any shape, and models that an engine can run.

The files of `write_header` have no tokenizer: they are for code that reads only headers.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
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
    save(writer)
    return path


def write_model(
    path: Path, template: str | None = TEMPLATE, seed: int = 1, words: Sequence[str] = ()
) -> Path:
    """Write a llama with random weights that an engine can run: 0.3 MB, a token for each byte.

    Its answers make no sense, and its context is 512 tokens. `words` are more tokens; as this
    tokenizer joins two tokens at a time, their beginnings must be among them.
    """
    dim, layers, heads, heads_kv, wide = 64, 2, 4, 2, 128
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(dim)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(wide)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads_kv)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    count = add_bytes(writer, words)
    if template is not None:
        writer.add_chat_template(template)
    shapes = {"token_embd": (count, dim), "output_norm": (dim,), "output": (count, dim)}
    for layer in range(layers):
        block = {
            "attn_norm": (dim,),
            "attn_q": (dim, dim),
            "attn_k": (dim // heads * heads_kv, dim),
            "attn_v": (dim // heads * heads_kv, dim),
            "attn_output": (dim, dim),
            "ffn_norm": (dim,),
            "ffn_gate": (wide, dim),
            "ffn_up": (wide, dim),
            "ffn_down": (dim, wide),
        }
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    random = np.random.default_rng(seed)
    for name, shape in shapes.items():
        weights = random.standard_normal(shape, dtype=np.float32) / np.float32(dim**0.5)
        writer.add_tensor(f"{name}.weight", np.ones_like(weights) if "norm" in name else weights)
    save(writer)
    return path


def add_bytes(writer: gguf.GGUFWriter, words: Sequence[str] = ()) -> int:
    """Add a tokenizer with a token for each byte, and `words`; returns how many tokens it has."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    kinds = gguf.TokenType
    special = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL]
    writer.add_token_types([*special, *[kinds.BYTE] * 256, *[kinds.NORMAL] * len(words)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    return len(tokens)


def write_vocabulary(path: Path) -> Path:
    """Write a GGUF without tensors."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_token_list([f"token{number}" for number in range(300)])
    save(writer)
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
        save(writer)
    return paths


def raw_header(*, version: int = 3, tensors: int = 0, pairs: int = 0, rest: bytes = b"") -> bytes:
    """The first bytes of a GGUF, with any counts that a test wants to claim."""
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


def save(writer: gguf.GGUFWriter) -> None:
    """Write everything added so far, and close the file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
