"""The pinned version of llama.cpp (`vendor/llama.cpp/pin.toml`), and where its tree is."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

# A checkout keeps the pin in its vendor folder; a wheel has a copy next to this file.
VENDOR_DIR = Path(__file__).resolve().parents[2] / "vendor" / "llama.cpp"
_INSTALLED_PIN = Path(__file__).with_name("pin.toml")


@dataclass(frozen=True)
class Pin:
    """The upstream commit and the package on the Python index whose sdist carries its tree."""

    commit: str
    build: int
    package: str
    version: str
    sha256: str
    folder: str

    @property
    def source_id(self) -> str:
        """The name of this source in the keys of the cache."""
        return f"pin-{self.sha256[:16]}"


def load_pin() -> Pin:
    """Read the pin; a broken file is a broken installation and raises what tomllib raises."""
    checked_out = VENDOR_DIR / "pin.toml"
    content = tomllib.loads((checked_out if checked_out.is_file() else _INSTALLED_PIN).read_text())
    upstream, source = content["upstream"], content["source"]
    return Pin(
        commit=upstream["commit"],
        build=upstream["build"],
        package=source["package"],
        version=source["version"],
        sha256=source["sha256"],
        folder=source["folder"],
    )


def vendored_tree() -> Path | None:
    """Where a checkout of MyLLM keeps llama.cpp's tree; None for an installed package."""
    return VENDOR_DIR / "src" if (VENDOR_DIR / "pin.toml").is_file() else None


def pinned_tree(cache_dir: Path, pin: Pin) -> Path:
    """Where the pinned source is unpacked: in the checkout, else in the cache."""
    tree = vendored_tree()
    if tree is not None and os.access(VENDOR_DIR, os.W_OK):
        return tree
    return cache_dir / "src" / pin.source_id
