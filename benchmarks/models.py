"""Models of random weights, made once and kept in the cache; the tests use the big one too."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from filelock import FileLock

from myllm.engine.find import find_engine
from myllm.settings import load_settings

_SCRIPT = Path(__file__).parent.parent / "scripts" / "random_model.py"


def big_models_dir() -> Path:
    """A folder with `big`: the shape of TinyLlama 1.1B, Q4_K_M. Making it takes a minute or two."""
    engine = find_engine(load_settings())
    assert engine is not None, "no engine"  # main has looked
    quantize = str(engine.tool("llama-quantize"))
    return _made("big", "--shape", "1.1b", "--quantize", "Q4_K_M", "--llama-quantize", quantize)


def long_models_dir() -> Path:
    """A folder with `long`: quick, and trained for 4,096 tokens, if it were trained."""
    return _made("long", "--shape", "tiny", "--context", "4096")


def _made(name: str, *arguments: str) -> Path:
    """Made aside and renamed, so that it is whole."""
    cache = load_settings().cache_dir
    folder = cache / ("test-models" if name == "big" else f"test-models-{name}")
    path = folder / name / f"{name}.gguf"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "test-models.lock"):
        if not path.exists():
            with tempfile.TemporaryDirectory(prefix="test-models.", dir=cache) as aside:
                made = Path(aside) / path.name
                command = [sys.executable, str(_SCRIPT), *arguments, str(made)]
                subprocess.run(command, check=True, stdout=sys.stderr, stderr=subprocess.DEVNULL)
                made.replace(path)
    return folder
