"""Three slow cold loads at once: they take as long as the slowest, not as long as all in a row."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

import myllm
from benchmarks.figures import Figure
from benchmarks.servers import myllm_server
from myllm.engine.find import find_engine
from myllm.settings import load_settings
from tests.serving import short_home

SLOW_S = 2.0
_DEMO = Path(myllm.__file__).parent / "models/builtin/demo/demo.gguf"


def measure(slow_s: float = SLOW_S) -> list[Figure]:
    """Load three copies of the demo model with an engine that first sleeps, as if the disk were
    slow; meanwhile, send requests to a fourth copy, which is loaded already."""
    engine = find_engine(load_settings())
    assert engine is not None, "no engine"  # main has checked this
    with short_home() as folder:
        wrapper = folder / "llama-server"
        wrapper.write_text(
            '#!/bin/sh\ncase "$*" in *--model*slow*) sleep '
            f'{slow_s};; esac\nexec {engine.server} "$@"\n'
        )
        wrapper.chmod(0o755)
        for number in range(4):
            (folder / f"slow{number}").mkdir()
            shutil.copy(_DEMO, folder / f"slow{number}")
        with myllm_server(models_dir=folder, llama_server=wrapper) as server:
            alone = _load(server.url, "slow3")
            with ThreadPoolExecutor(4) as pool:
                began = time.monotonic()
                loads = [pool.submit(_load, server.url, f"slow{number}") for number in range(3)]
                others = []
                while not all(load.done() for load in loads):
                    others.append(_ask(server.url, "slow3"))
                times = sorted(load.result() for load in loads)
                took = time.monotonic() - began
    each = ", ".join(f"{one:.2f}" for one in times)
    return [
        Figure("a cold load alone", alone, "s", None, f"of which {slow_s:g} s are asleep"),
        Figure("  three at once", took, "s", 1.5 * alone, f"{each} s; in a row: {3 * alone:.1f}"),
        Figure("  meanwhile, another model's answer", max(others), "s", slow_s / 2, "the slowest"),
    ]


def _load(url: str, model: str) -> float:
    began = time.monotonic()
    httpx.post(f"{url}/api/models/{model}/load", timeout=60).raise_for_status()
    return time.monotonic() - began


def _ask(url: str, model: str) -> float:
    began = time.monotonic()
    body = {"model": model, "prompt": "x", "stream": False, "options": {"max_tokens": 4}}
    httpx.post(f"{url}/api/generate", json=body, timeout=60).raise_for_status()
    return time.monotonic() - began
