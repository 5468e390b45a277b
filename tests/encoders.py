"""Models with random weights that an engine can run, 0.1 MB each: bert as an embedder and as a
reranker, gemma2 for its sliding window.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np

from tests.ggufs import TEMPLATE, save

DIM, CONTEXT, WINDOW = 32, 128, 64
_LAYERS, _HEADS, _WIDE = 2, 4, 64
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CLS, SEP = 2, 3
# llama.cpp puts a mark before each word; the tokens of a word are its letters.
_SIGNS = string.ascii_lowercase + string.digits + string.punctuation
WORD_PIECES = [*_SPECIAL, *(f"\N{LOWER ONE EIGHTH BLOCK}{sign}" for sign in _SIGNS), *_SIGNS]
_Shapes = dict[str, tuple[int, ...]]


def write_bert(path: Path, *, rank: bool = False, pooling: bool = True) -> Path:
    """Write an encoder of 32 dimensions that reads up to 128 tokens; each letter and sign is one.

    `rank` adds the head that scores a document. Without `pooling`, the file names no method that
    combines the vectors of its tokens into one.
    """
    writer = _writer(path, "bert")
    writer.add_layer_norm_eps(1e-5)
    writer.add_causal_attention(False)
    if pooling:
        kind = gguf.PoolingType.RANK if rank else gguf.PoolingType.CLS
        writer.add_pooling_type(kind)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(WORD_PIECES)
    writer.add_token_types([gguf.TokenType.CONTROL] * 5 + [gguf.TokenType.NORMAL] * 2 * len(_SIGNS))
    writer.add_token_type_count(2)
    writer.add_bos_token_id(CLS)
    writer.add_sep_token_id(SEP)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_mask_token_id(4)
    shapes: _Shapes = {
        "token_embd.weight": (len(WORD_PIECES), DIM),
        "token_types.weight": (2, DIM),
        "position_embd.weight": (CONTEXT, DIM),
        **_norm("token_embd_norm"),
    }
    for layer in range(_LAYERS):
        block = f"blk.{layer}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            shapes |= {f"{block}.{name}.weight": (DIM, DIM), f"{block}.{name}.bias": (DIM,)}
        shapes |= _norm(f"{block}.attn_output_norm") | _norm(f"{block}.layer_output_norm")
        shapes |= {f"{block}.ffn_up.weight": (_WIDE, DIM), f"{block}.ffn_up.bias": (_WIDE,)}
        shapes |= {f"{block}.ffn_down.weight": (DIM, _WIDE), f"{block}.ffn_down.bias": (DIM,)}
    if rank:
        shapes |= {"cls.weight": (DIM, DIM), "cls.bias": (DIM,)}
        shapes |= {"cls.output.weight": (1, DIM), "cls.output.bias": (1,)}
    return _with_weights(writer, path, shapes)


def write_gemma2(path: Path) -> Path:
    """Write a model whose every other layer sees only the last 64 tokens; each byte is a token, the
    context is 512. Its vocabulary has the tokens for filling in the middle."""
    writer = _writer(path, "gemma2", 512)
    writer.add_head_count_kv(2)
    writer.add_key_length(DIM // _HEADS)
    writer.add_value_length(DIM // _HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_sliding_window(WINDOW)
    writer.add_attn_logit_softcapping(50.0)
    writer.add_final_logit_softcapping(30.0)
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens = ["<unk>", "<bos>", "<eos>", *bytes_, "<PRE>", "<SUF>", "<MID>"]
    kinds, control = gguf.TokenType, gguf.TokenType.CONTROL
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([kinds.UNKNOWN, control, control, *[kinds.BYTE] * 256, *[control] * 3])
    for number, name in enumerate(("pre", "suf", "mid")):
        writer.add_uint32(f"tokenizer.ggml.fim_{name}_token_id", 259 + number)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    shapes: _Shapes = {"token_embd.weight": (len(tokens), DIM), "output_norm.weight": (DIM,)}
    for layer in range(_LAYERS):
        block = {
            "attn_q": (DIM, DIM),
            "attn_k": (DIM // 2, DIM),
            "attn_v": (DIM // 2, DIM),
            "attn_output": (DIM, DIM),
            "ffn_gate": (_WIDE, DIM),
            "ffn_up": (_WIDE, DIM),
            "ffn_down": (DIM, _WIDE),
        }
        norms = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in block.items()}
        shapes |= {f"blk.{layer}.{name}.weight": (DIM,) for name in norms}
    return _with_weights(writer, path, shapes)


def _writer(path: Path, architecture: str, context: int = CONTEXT) -> gguf.GGUFWriter:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_context_length(context)
    writer.add_embedding_length(DIM)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_WIDE)
    writer.add_head_count(_HEADS)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    return writer


def _norm(name: str) -> _Shapes:
    return {f"{name}.weight": (DIM,), f"{name}.bias": (DIM,)}


def _with_weights(
    writer: gguf.GGUFWriter, path: Path, shapes: Mapping[str, tuple[int, ...]]
) -> Path:
    """Write the file with random weights, except for neutral norms."""
    random = np.random.default_rng(1)
    for name, shape in shapes.items():
        weights = random.standard_normal(shape, dtype=np.float32) / np.float32(DIM**0.5)
        if "norm" in name:
            weights = np.full_like(weights, 1.0 if name.endswith("weight") else 0.0)
        writer.add_tensor(name, weights)
    save(writer)
    return path
