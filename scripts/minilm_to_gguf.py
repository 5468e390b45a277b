"""Convert a BERT sentence encoder, such as all-MiniLM-L6-v2, from safetensors to a GGUF in F16.

    python scripts/minilm_to_gguf.py FOLDER all-MiniLM-L6-v2.gguf

FOLDER has `config.json`, `vocab.txt` (WordPiece, lower case) and `model.safetensors` in F32, as
sentence-transformers saves them. Needs `gguf` and NumPy (the `test` extra).
"""

from __future__ import annotations

import argparse
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np

# llama.cpp marks the beginning of a word, WordPiece its continuation.
_WORD_BEGINS, _CONTINUES = "\N{LOWER ONE EIGHTH BLOCK}", "##"
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# The first layers of BERT classifiers, and numbers that are counted, not learned.
_LEFT_OUT = ("pooler.", "embeddings.position_ids")
# Added up rather than multiplied with, and so small that halving them would save nothing.
_WHOLE = ("token_types.weight", "position_embd.weight")


def convert(folder: Path, path: Path) -> None:
    """Write the model in `folder` to `path`, aside and renamed.

    Raises ValueError for a tensor that BERT does not have or that is not in F32, and KeyError for
    what is missing in `config.json`.
    """
    config = json.loads((folder / "config.json").read_text())
    aside = path.with_suffix(".part")
    writer = gguf.GGUFWriter(str(aside), gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.BERT])
    _add_shape(writer, config)
    writer.add_pooling_type(_pooling(folder))
    _add_tokenizer(writer, (folder / "vocab.txt").read_text("utf-8").splitlines(), config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config["num_hidden_layers"])
    for name, values in _tensors(folder / "model.safetensors"):
        known = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if known is None:
            raise ValueError(f"BERT has no tensor {name}")
        halved = values.ndim == 2 and known not in _WHOLE
        writer.add_tensor(known, values.astype(np.float16) if halved else values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(aside, path)


def _add_shape(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_license("apache-2.0")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)


def _pooling(folder: Path) -> gguf.PoolingType:
    """How the vectors of a text's tokens become one."""
    told = json.loads((folder / "1_Pooling" / "config.json").read_text())
    return gguf.PoolingType.MEAN if told["pooling_mode_mean_tokens"] else gguf.PoolingType.CLS


def _add_tokenizer(writer: gguf.GGUFWriter, pieces: list[str], config: dict[str, Any]) -> None:
    """llama.cpp lowers case, strips accents and adds [CLS] and [SEP] by itself."""
    kinds = gguf.TokenType
    writer.add_tokenizer_model("bert")
    writer.add_token_list([_as_llama_cpp_spells(piece) for piece in pieces])
    writer.add_token_types(
        [kinds.CONTROL if piece in _SPECIAL else kinds.NORMAL for piece in pieces]
    )
    writer.add_token_type_count(config["type_vocab_size"])
    pad, unknown, begin, end, mask = (pieces.index(piece) for piece in _SPECIAL)
    writer.add_pad_token_id(pad)
    writer.add_unk_token_id(unknown)
    writer.add_bos_token_id(begin)
    writer.add_sep_token_id(end)
    writer.add_mask_token_id(mask)


def _as_llama_cpp_spells(piece: str) -> str:
    if piece.startswith("[") and piece.endswith("]"):
        return piece
    if piece.startswith(_CONTINUES):
        return piece.removeprefix(_CONTINUES)
    return _WORD_BEGINS + piece


def _tensors(path: Path) -> Iterator[tuple[str, np.ndarray[Any, np.dtype[np.float32]]]]:
    """The tensors of a safetensors file, which are a length, a table in JSON, and the numbers."""
    content = np.memmap(path, dtype=np.uint8, mode="r")
    (table_bytes,) = struct.unpack("<Q", content[:8].tobytes())
    table: dict[str, dict[str, Any]] = json.loads(content[8 : 8 + table_bytes].tobytes())
    numbers = content[8 + table_bytes :]
    for name, entry in table.items():
        if name == "__metadata__" or name.startswith(_LEFT_OUT):
            continue
        if entry["dtype"] != "F32":
            raise ValueError(f"{name} is in {entry['dtype']}, not in F32")
        begin, end = entry["data_offsets"]
        yield name, numbers[begin:end].view("<f4").reshape(entry["shape"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("path", type=Path)
    args = parser.parse_args()
    convert(args.folder, args.path)


if __name__ == "__main__":
    main()
