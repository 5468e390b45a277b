"""Write a llama-shaped GGUF with random weights, for tests and benchmarks of size and speed.

    python scripts/random_model.py --shape 1.1b --quantize Q4_K_M big.gguf

Its answers make no sense, but it has the tensors, the tokenizer and the speed of a real model of
that shape. The tokenizer (32,000 SentencePiece tokens) is a copy from a vocabulary file in
llama.cpp's source. Needs `gguf` and NumPy (the `test` extra).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import gguf
import numpy as np

VOCABULARY = Path(__file__).parent.parent / "vendor/llama.cpp/src/models/ggml-vocab-llama-spm.gguf"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}</s>\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """The dimensions of a llama model."""

    dim: int
    layers: int
    heads: int
    kv_heads: int
    feed_forward: int
    context: int = 2048


SHAPES = {
    "micro": Shape(dim=64, layers=2, heads=4, kv_heads=2, feed_forward=128),
    "tiny": Shape(dim=256, layers=2, heads=4, kv_heads=2, feed_forward=512),
    "1.1b": Shape(dim=2048, layers=22, heads=32, kv_heads=4, feed_forward=5632),
}


def write(path: Path, shape: Shape, vocabulary: Path = VOCABULARY, seed: int = 1) -> None:
    """Write an F16 GGUF of `shape` to `path`, with the tokenizer of the file `vocabulary`."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("random")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.dim)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.dim // shape.heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_chat_template(CHAT_TEMPLATE)
    tokens = _copy_tokenizer(writer, vocabulary)
    _add_tensors(writer, shape, tokens, np.random.default_rng(seed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _copy_tokenizer(writer: gguf.GGUFWriter, vocabulary: Path) -> int:
    """Copy every `tokenizer.*` field except the template; return the number of tokens."""
    fields = gguf.GGUFReader(str(vocabulary)).fields
    for name, field in fields.items():
        if not name.startswith("tokenizer.") or name == "tokenizer.chat_template":
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_type=inner)
    return len(fields["tokenizer.ggml.tokens"].data)


def _add_tensors(
    writer: gguf.GGUFWriter, shape: Shape, tokens: int, random: np.random.Generator
) -> None:
    """Add normal-distributed matrices and norms of one, as llama's architecture names them."""
    head_dim = shape.dim // shape.heads

    def matrix(name: str, rows: int, columns: int) -> None:
        values = random.standard_normal((rows, columns), dtype=np.float32) * columns**-0.5
        writer.add_tensor(f"{name}.weight", values.astype(np.float16))

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(shape.dim, dtype=np.float32))

    matrix("token_embd", tokens, shape.dim)
    for block in (f"blk.{index}" for index in range(shape.layers)):
        norm(f"{block}.attn_norm")
        matrix(f"{block}.attn_q", shape.dim, shape.dim)
        matrix(f"{block}.attn_k", shape.kv_heads * head_dim, shape.dim)
        matrix(f"{block}.attn_v", shape.kv_heads * head_dim, shape.dim)
        matrix(f"{block}.attn_output", shape.dim, shape.dim)
        norm(f"{block}.ffn_norm")
        matrix(f"{block}.ffn_gate", shape.feed_forward, shape.dim)
        matrix(f"{block}.ffn_up", shape.feed_forward, shape.dim)
        matrix(f"{block}.ffn_down", shape.dim, shape.feed_forward)
    norm("output_norm")
    matrix("output", tokens, shape.dim)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="tiny")
    parser.add_argument("--context", type=int, help="tokens it was trained for, so it says")
    parser.add_argument("--vocabulary", type=Path, default=VOCABULARY)
    parser.add_argument("--quantize", metavar="TYPE", help="then quantize, such as Q4_K_M")
    parser.add_argument("--llama-quantize", default="llama-quantize", help="program to do it with")
    args = parser.parse_args()
    shape = SHAPES[args.shape]
    if args.context:
        shape = replace(shape, context=args.context)
    if not args.quantize:
        return write(args.path, shape, args.vocabulary)
    full = args.path.with_suffix(".f16.gguf")
    try:
        write(full, shape, args.vocabulary)
        partial = args.path.with_suffix(".part.gguf")
        command = [args.llama_quantize, str(full), str(partial), args.quantize]
        subprocess.run(command, check=True, stdout=sys.stderr)
        os.replace(partial, args.path)
    finally:
        full.unlink(missing_ok=True)
    return None


if __name__ == "__main__":
    main()
