"""How much memory a model takes: an estimate from its header alone.

It is an upper bound for attention with a sliding window, because the header does not have the
window's pattern; `llama-fit-params` and the measured size of a running engine are exact.
"""

from __future__ import annotations

from typing import Final

from myllm.models.gguf_header import Header
from myllm.models.model import Model

_MIB: Final = 1 << 20
_F16: Final = 2
_F32: Final = 4
_CONTEXT_STEP: Final = 256
_PROCESS_MB: Final = 32
"""llama-server itself: code, heap, and its vocabulary."""


def estimate_mb(model: Model, context_size: int, slots: int, batch: int = 512) -> int:
    """Mebibytes that the model takes with `slots` conversations of `context_size` tokens each,
    read in steps of `batch` tokens: weights (including a projector's), keys and values, and
    compute buffers."""
    header = model.header
    weights = header.tensor_bytes or model.size_bytes
    if model.projector is not None:
        weights += model.projector.size_bytes
    conversations = kv_bytes(header, context_size, slots)
    compute = compute_bytes(header, context_size, slots, batch)
    return -(-(weights + conversations + compute) // _MIB) + _PROCESS_MB


def kv_bytes(header: Header, context_size: int, slots: int) -> int:
    """Bytes of the KV cache in f16 and of recurrent states in f32; 0 for an encoder without either.

    Per token and layer: heads_kv x (key_length + value_length) x 2 bytes; the context is
    rounded up to 256 tokens (llama.cpp, `src/llama-kv-cache.cpp` and `src/llama-context.cpp`).
    Per conversation and layer: the recurrent state (`src/llama-memory-recurrent.cpp`).
    """
    if header.cache_kind == "none":
        return 0
    per_token = sum(header.heads_kv) * (header.key_length + header.value_length) * _F16
    tokens = -(-context_size // _CONTEXT_STEP) * _CONTEXT_STEP * slots
    states = header.layers * header.recurrent_state * _F32 * slots
    return per_token * tokens + states


def checkpoint_bytes(header: Header, context_size: int, batch: int) -> int:
    """Bytes of one checkpoint that llama-server keeps of a conversation whose memory cannot be
    rewound: its recurrent state, and the keys and values within a sliding window (counted here for
    all layers). 0 for a model that keeps all of its keys and values."""
    window = min(context_size, header.sliding_window + batch) if header.sliding_window else 0
    return 0 if header.cache_kind in ("none", "dense") else kv_bytes(header, window, 1)


def compute_bytes(header: Header, context_size: int, slots: int, batch: int) -> int:
    """Bytes of the buffers for one batch, as llama.cpp reserves them for its largest graph.

    The buffers are reused from layer to layer, so the widest one counts: the logits of a
    batch (vocabulary x batch, f32) or the activations (a few times the embedding and the
    feed-forward length). The attention mask comes on top, one row per token of the batch.
    """
    wide = 4 * header.embedding_length + 3 * header.feed_forward_length
    mask = context_size * slots * _F16
    return batch * (max(header.vocabulary_size, wide) * _F32 + mask)
