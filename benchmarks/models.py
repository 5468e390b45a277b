"""Models for measurements: trained ones, and ones with random weights that stay in the cache."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from filelock import FileLock

from myllm.engine.fetch import provide_tree
from myllm.engine.find import find_engine
from myllm.engine.progress import no_progress
from myllm.engine.source import find_source
from myllm.settings import load_settings
from scripts import fetch_real_models

_SCRIPT = Path(__file__).parent.parent / "scripts" / "random_model.py"


def big_models_dir() -> Path:
    """A folder with `big`: the shape of TinyLlama 1.1B, Q4_K_M. Making it takes a minute or two."""
    return _made("big", *_big())


def big_long_models_dir() -> Path:
    """A folder with `big-long`: the same, declared as trained for 8,192 tokens."""
    return _made("big-long", *_big(), "--context", "8192")


def _big() -> tuple[str, ...]:
    engine = find_engine(load_settings())
    assert engine is not None, "no engine"  # main has checked this
    quantize = str(engine.tool("llama-quantize"))
    return ("--shape", "1.1b", "--quantize", "Q4_K_M", "--llama-quantize", quantize)


def long_models_dir() -> Path:
    """A folder with `long`: a fast model, declared as trained for 4,096 tokens."""
    return _made("long", "--shape", "tiny", "--context", "4096")


def micro_models_dir() -> Path:
    """A folder with `micro`: so fast that the cost of a gateway shows."""
    return _made("micro", "--shape", "micro")


def real_models_dir() -> Path:
    """A folder with the trained `smollm2-135m` and `all-minilm`; the first use fetches them."""
    return fetch_real_models.fetch()


def smollm2_path() -> Path:
    """SmolLM2-135M-Instruct, Q4_1: a trained model that chats."""
    return fetch_real_models.gguf(real_models_dir(), fetch_real_models.SMOLLM2)


def minilm_path() -> Path:
    """all-MiniLM-L6-v2, F16: a trained model that embeds."""
    return fetch_real_models.gguf(real_models_dir(), fetch_real_models.MINILM)


def _made(name: str, *arguments: str) -> Path:
    """Create the model in a temporary folder and rename it, so that it is complete."""
    settings = load_settings()
    cache = settings.cache_dir
    folder = cache / ("test-models" if name == "big" else f"test-models-{name}")
    path = folder / name / f"{name}.gguf"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "test-models.lock"):
        if not path.exists():
            # An engine from the cache may have been compiled by another checkout.
            source = find_source(settings)
            provide_tree(source, cache, no_progress)
            vocabulary = source.tree / "models" / "ggml-vocab-llama-spm.gguf"
            arguments = (*arguments, "--vocabulary", str(vocabulary))
            with tempfile.TemporaryDirectory(prefix="test-models.", dir=cache) as aside:
                made = Path(aside) / path.name
                command = [sys.executable, str(_SCRIPT), *arguments, str(made)]
                subprocess.run(command, check=True, stdout=sys.stderr, stderr=subprocess.DEVNULL)
                made.replace(path)
    return folder
