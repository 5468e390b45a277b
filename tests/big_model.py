"""A model of a real model's size, for effects that a tiny model is too quick to show."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from filelock import FileLock

from myllm.engine.engine import Engine
from myllm.engine.fetch import provide_tree
from myllm.engine.progress import no_progress
from myllm.engine.source import find_source
from myllm.settings import load_settings

_SCRIPT = Path(__file__).parent.parent / "scripts" / "random_model.py"


@pytest.fixture(scope="session")
def big_model(engine: Engine) -> Path:
    """`<models>/big/big.gguf`: the shape of TinyLlama 1.1B, random weights, Q4_K_M, 640 MB.

    Making it takes a minute or two, so it stays in the cache for later runs. The folder
    `<models>` holds nothing else, so that a server can use it as its models folder.
    """
    cache = load_settings().cache_dir
    model = cache / "test-models" / "big" / "big.gguf"
    model.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "test-models.lock"):
        if not model.exists():
            _make(model, engine.tool("llama-quantize"))
    return model


def _make(model: Path, quantize: Path) -> None:
    """Write the model in a temporary folder and rename it, so that a model in place is complete."""
    settings = load_settings()
    cache, source = settings.cache_dir, find_source(settings)
    # An engine from the cache may have been compiled by another checkout.
    provide_tree(source, cache, no_progress)
    vocabulary = source.tree / "models" / "ggml-vocab-llama-spm.gguf"
    with tempfile.TemporaryDirectory(prefix="test-models.", dir=cache) as aside:
        made = Path(aside) / model.name
        arguments = ["--shape", "1.1b", "--quantize", "Q4_K_M", "--llama-quantize", str(quantize)]
        arguments += ["--vocabulary", str(vocabulary)]
        subprocess.run(
            [sys.executable, str(_SCRIPT), *arguments, str(made)],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        made.replace(model)
