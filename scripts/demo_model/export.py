"""The trained network as a GGUF file that llama.cpp loads."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
from tokenizers import Tokenizer
from torch import Tensor

from .network import Layer, Network
from .tokens import BEGIN, CHAT_TEMPLATE, CONTROL, END


def write_gguf(network: Network, tokenizer: Tokenizer, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "llama")
    describe(writer)
    add_shape(writer, network)
    add_tokenizer(writer, tokenizer)
    add_tensors(writer, network)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def describe(writer: gguf.GGUFWriter) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name("demo")
    writer.add_description("MyLLM's own tiny chat model, for trying MyLLM without a network")
    writer.add_author("MyLLM")
    writer.add_license("mit")
    writer.add_languages(["en"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def add_shape(writer: gguf.GGUFWriter, network: Network) -> None:
    shape = network.shape
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_vocab_size(shape.vocabulary)


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    model = json.loads(tokenizer.to_str())["model"]
    ids: dict[str, int] = tokenizer.get_vocab()
    tokens = sorted(ids, key=lambda token: ids[token])
    kinds = gguf.TokenType
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([kinds.CONTROL if t in CONTROL else kinds.NORMAL for t in tokens])
    writer.add_token_merges([" ".join(merge) for merge in model["merges"]])
    writer.add_bos_token_id(ids[BEGIN])
    writer.add_eos_token_id(ids[END])
    writer.add_eot_token_id(ids[END])
    writer.add_pad_token_id(ids[END])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def add_tensors(writer: gguf.GGUFWriter, network: Network) -> None:
    """The file has no tensor for the output, so llama.cpp uses the embedding."""
    add(writer, "token_embd", network.embedding.weight)
    add(writer, "output_norm", network.norm.weight)
    for index, layer in enumerate(network.layers):
        assert isinstance(layer, Layer)
        for name, weight in layer_tensors(layer).items():
            add(writer, f"blk.{index}.{name}", weight)


def layer_tensors(layer: Layer) -> dict[str, Tensor]:
    query, key, value = layer.query_key_value.weight.chunk(3)
    gate, up = layer.gate_up.weight.chunk(2)
    return {
        "attn_norm": layer.attention_norm.weight,
        "attn_q": query,
        "attn_k": key,
        "attn_v": value,
        "attn_output": layer.attention_output.weight,
        "ffn_norm": layer.feed_norm.weight,
        "ffn_gate": gate,
        "ffn_up": up,
        "ffn_down": layer.down.weight,
    }


def add(writer: gguf.GGUFWriter, name: str, weight: Tensor) -> None:
    """Matrices as F16, norms as F32."""
    kind = np.float16 if weight.dim() == 2 else np.float32
    writer.add_tensor(f"{name}.weight", weight.detach().numpy().astype(kind))
