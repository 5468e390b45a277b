"""The trained models that `scripts/real_models` fetches, and a server that has them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts import fetch_real_models
from scripts.fetch_real_models import MINILM, SMOLLM2
from tests.serving import Serving, serving, short_home

__all__ = ["MINILM", "SMOLLM2", "link_real_model", "real_model", "serving_real_models"]


def real_model(name: str) -> Path:
    """The GGUF file of SMOLLM2 or MINILM; the test fails if it has not been fetched."""
    try:
        return fetch_real_models.gguf(fetch_real_models.models_dir(), name)
    except FileNotFoundError as missing:
        pytest.fail(f"{missing}; fetch the trained models with 'scripts/real_models'")


def link_real_model(models_dir: Path, name: str) -> None:
    """Link the model into `models_dir`."""
    models_dir.mkdir(exist_ok=True)
    (models_dir / name).symlink_to(real_model(name).parent, target_is_directory=True)


@contextmanager
def serving_real_models(*names: str, **settings: object) -> Iterator[Serving]:
    """`myllm serve` whose models folder has these models."""
    with short_home() as home:
        for name in names:
            link_real_model(home / "models", name)
        with serving(home, **settings) as server:
            yield server
