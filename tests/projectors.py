"""A projector with random weights, and images and sounds for multimodal models.

An engine can run it with a model of `tests.ggufs.write_model`: an image becomes 16 tokens, a sound
one token for every 40 ms.
"""

from __future__ import annotations

import base64
import io
import math
import struct
import wave
import zlib
from pathlib import Path

import gguf
import numpy as np

_MODEL_DIM = 64
_DIM, _HEADS, _WIDE, _LAYERS = 32, 2, 64, 2
_IMAGE, _PATCH = 32, 8
_RATE, _FRAME = 16000, 640


def write_projector(path: Path, sees: bool = True, hears: bool = False) -> Path:
    """Write a projector of 0.1 MB, 0.3 MB if it hears.

    It encodes images with a vision transformer of one layer (llama.cpp's type `mlp`; the last layer
    is not used), and sounds with a projection of their samples (`gemma4ua`).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(str(path), "clip")
    writer.add_bool("clip.has_vision_encoder", sees)
    writer.add_bool("clip.has_audio_encoder", hears)
    shapes: dict[str, tuple[int, ...]] = {}
    if sees:
        shapes |= _vision(writer)
    if hears:
        shapes |= _audio(writer)
    random = np.random.default_rng(1)
    for name, shape in shapes.items():
        weights = random.standard_normal(shape, dtype=np.float32) / np.float32(_DIM**0.5)
        writer.add_tensor(name, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _encoder(writer: gguf.GGUFWriter, kind: str, projector: str, layers: int) -> None:
    writer.add_string(f"clip.{kind}.projector_type", projector)
    writer.add_uint32(f"clip.{kind}.embedding_length", _DIM)
    writer.add_uint32(f"clip.{kind}.feed_forward_length", _WIDE)
    writer.add_uint32(f"clip.{kind}.block_count", layers)
    writer.add_uint32(f"clip.{kind}.projection_dim", _MODEL_DIM)
    writer.add_uint32(f"clip.{kind}.attention.head_count", _HEADS)
    writer.add_float32(f"clip.{kind}.attention.layer_norm_epsilon", 1e-5)


def _vision(writer: gguf.GGUFWriter) -> dict[str, tuple[int, ...]]:
    _encoder(writer, "vision", "mlp", _LAYERS)
    writer.add_uint32("clip.vision.image_size", _IMAGE)
    writer.add_uint32("clip.vision.patch_size", _PATCH)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    shapes: dict[str, tuple[int, ...]] = {
        "v.patch_embd.weight": (_DIM, 3, _PATCH, _PATCH),
        "v.position_embd.weight": ((_IMAGE // _PATCH) ** 2, _DIM),
        "mm.0.weight": (_MODEL_DIM, _DIM),
        "mm.0.bias": (_MODEL_DIM,),
        "mm.2.weight": (_MODEL_DIM, _MODEL_DIM),
        "mm.2.bias": (_MODEL_DIM,),
    }
    for layer in range(_LAYERS):
        block = {
            "ln1.weight": (_DIM,),
            "ln1.bias": (_DIM,),
            "attn_q.weight": (_DIM, _DIM),
            "attn_k.weight": (_DIM, _DIM),
            "attn_v.weight": (_DIM, _DIM),
            "attn_out.weight": (_DIM, _DIM),
            "ln2.weight": (_DIM,),
            "ln2.bias": (_DIM,),
            "ffn_up.weight": (_WIDE, _DIM),
            "ffn_down.weight": (_DIM, _WIDE),
        }
        shapes |= {f"v.blk.{layer}.{name}": shape for name, shape in block.items()}
    return shapes


def _audio(writer: gguf.GGUFWriter) -> dict[str, tuple[int, ...]]:
    _encoder(writer, "audio", "gemma4ua", 0)
    writer.add_uint32("clip.audio.num_mel_bins", _FRAME)
    return {"mm.a.input_projection.weight": (_MODEL_DIM, _FRAME)}


def png(red: int, green: int, blue: int, side: int = 48) -> bytes:
    """A picture of one colour."""
    rows = (b"\0" + bytes((red, green, blue)) * side) * side
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def wav(hertz: float, seconds: float = 0.4) -> bytes:
    """A tone."""
    samples = [
        round(20000 * math.sin(2 * math.pi * hertz * n / _RATE))
        for n in range(int(_RATE * seconds))
    ]
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(_RATE)
        writer.writeframes(struct.pack(f"<{len(samples)}h", *samples))
    return file.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def data_url(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{b64(data)}"
