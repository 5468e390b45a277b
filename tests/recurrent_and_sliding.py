"""Small models whose memory is not a KV cache of all earlier tokens.

Their weights are random and their answers make no sense, but an engine can run them.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from tests.ggufs import TEMPLATE, add_bytes, save

_DIM = 64
_LAYERS = 2
_CONTEXT = 2048
# Without its own token a space would become three byte tokens with another spelling.
_SPACE = "▁"
# The answer stands where a later prompt has it.
_TEMPLATE = TEMPLATE + "{% if add_generation_prompt %}assistant: {% endif %}"


def write_recurrent(path: Path) -> Path:
    """Write a mamba, whose state has a fixed size."""
    writer = _begun(path, "mamba")
    inner, states, kernel, rank = 2 * _DIM, 16, 4, 4
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_ssm_conv_kernel(kernel)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(states)
    writer.add_ssm_time_step_rank(rank)
    shapes: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (_DIM,),
        "ssm_in.weight": (2 * inner, _DIM),
        "ssm_conv1d.weight": (inner, kernel),
        "ssm_conv1d.bias": (inner,),
        "ssm_x.weight": (rank + 2 * states, inner),
        "ssm_dt.weight": (inner, rank),
        "ssm_dt.bias": (inner,),
        "ssm_a": (inner, states),
        "ssm_d": (inner,),
        "ssm_out.weight": (_DIM, inner),
    }
    return _finished(writer, path, shapes)


def write_sliding(path: Path) -> Path:
    """Write a gemma2 whose second half of layers sees only the last 128 tokens."""
    writer = _begun(path, "gemma2")
    heads, heads_kv, wide = 4, 2, 128
    writer.add_feed_forward_length(wide)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads_kv)
    writer.add_sliding_window(128)
    norms = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (_DIM,) for name in norms}
    shapes |= {
        "attn_q.weight": (_DIM, _DIM),
        "attn_k.weight": (_DIM // heads * heads_kv, _DIM),
        "attn_v.weight": (_DIM // heads * heads_kv, _DIM),
        "attn_output.weight": (_DIM, _DIM),
        "ffn_gate.weight": (wide, _DIM),
        "ffn_up.weight": (wide, _DIM),
        "ffn_down.weight": (_DIM, wide),
    }
    return _finished(writer, path, shapes)


def _begun(path: Path, architecture: str) -> gguf.GGUFWriter:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(_DIM)
    writer.add_block_count(_LAYERS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_chat_template(_TEMPLATE)
    return writer


def _finished(writer: gguf.GGUFWriter, path: Path, block: dict[str, tuple[int, ...]]) -> Path:
    """Write `block` once for each layer, between the tensors that all models have."""
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (add_bytes(writer, [_SPACE]), _DIM),
        "output_norm.weight": (_DIM,),
    }
    for layer in range(_LAYERS):
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    random = np.random.default_rng(1)
    for name, shape in shapes.items():
        weights = random.standard_normal(shape, dtype=np.float32) / np.float32(_DIM**0.5)
        if "norm" in name:
            weights = np.ones_like(weights)
        elif name.endswith("ssm_a"):
            weights = -np.abs(weights)  # the state decays
        writer.add_tensor(name, weights)
    save(writer)
    return path
