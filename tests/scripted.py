"""A model whose weights make it call one tool, and answer when it has the result.

Agents send instructions of 10,000 tokens, from which the demo model makes nothing. This model reads
them, too, but what it says next depends on the last token alone: its embeddings are units, its
layer adds nothing, and its output has a row for what follows each unit. The template ends a prompt
with one of two tokens, depending on whether a tool has been called already.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tests.ggufs import save
from tests.tooled import TOOLS

_CALL, _ANSWER = "<|call|>", "<|answer|>"
_DIM = 32
# Tokens of two characters halve a prompt; U+2581 is the tokenizer's space.
_CHARS = ["\u2581", *map(chr, range(33, 127))]
_PAIRS = [one + other for one in _CHARS for other in _CHARS]
_END = "{{- '<|assistant|>' }}\n{%- endif %}\n"
_EITHER = f"{{{{- '{_ANSWER}' if messages[-1].role == 'tool' else '{_CALL}' }}}}\n{{%- endif %}}\n"


def add_scripted_model(
    models_dir: Path, name: str, tool: str, arguments: dict[str, Any], answer: str, **config: Any
) -> None:
    """Add a model that calls `tool`, and then gives `answer`. It has 131,072 tokens of context."""
    folder = models_dir / name
    folder.mkdir(parents=True)
    assert TOOLS.endswith(_END)
    (folder / "chat.jinja").write_text(TOOLS.removesuffix(_END) + _EITHER)
    call = json.dumps({"name": tool, "arguments": arguments})
    _write(folder / "model.gguf", f"Paris.[{call}]</calls>", answer)
    own = {"template": "chat.jinja", "context_size": 65536, "parameters": {"temperature": 0}}
    (folder / "config.json").write_text(json.dumps(own | config))


def _write(path: Path, call: str, answer: str) -> None:
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(131072)
    writer.add_embedding_length(_DIM)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_DIM)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *_PAIRS]
    first = len(tokens)
    tokens += [_CALL, call, _ANSWER, answer]
    kinds = gguf.TokenType
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(
        [
            *[kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL],
            *[kinds.BYTE] * 256,
            *[kinds.NORMAL] * len(_PAIRS),
            *[kinds.CONTROL, kinds.USER_DEFINED] * 2,
        ]
    )
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_space_prefix(False)
    embedding = np.zeros((len(tokens), _DIM), np.float32)
    output = np.zeros_like(embedding)
    for unit in range(4):
        embedding[first + unit, unit] = 1
        follows = 2 if unit % 2 else first + unit + 1
        output[follows, unit] = 20
    square, ones = np.zeros((_DIM, _DIM), np.float32), np.ones(_DIM, np.float32)
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output.weight", output)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", ones)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", square)
    save(writer)
