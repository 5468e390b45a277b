"""The projector by which a model sees or hears: a second GGUF, named `mmproj*.gguf`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from myllm.errors import InvalidModel

Medium = Literal["image", "audio"]

_ENCODERS: Final[dict[Medium, str]] = {
    "image": "clip.has_vision_encoder",
    "audio": "clip.has_audio_encoder",
}


@dataclass(frozen=True)
class Projector:
    """A projector on disk, and the media that it translates for its model.

    `digest` is cheap and stable, see `gguf.read_header`.
    """

    path: Path
    media: tuple[Medium, ...]
    size_bytes: int
    digest: str


def projector_from(
    path: Path,
    values: Mapping[str, object],
    *,
    parameter_count: int,
    tensor_bytes: int,
    digest: str,
) -> Projector:
    """Build the projector from the key-value pairs of the file `path`; raises InvalidModel when
    the file is something else."""
    if values.get("general.architecture") != "clip":
        raise InvalidModel(f"{path} is named like a projector but is not one")
    media = tuple(medium for medium, key in _ENCODERS.items() if values.get(key) is True)
    return Projector(path, media, tensor_bytes, digest)
