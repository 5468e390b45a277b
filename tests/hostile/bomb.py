"""A chat template that makes an engine grow far beyond what its model needs."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

import myllm
from tests.serving import Serving

_DEMO = Path(myllm.__file__).parent / "models/builtin/demo/demo.gguf"
_BOMB = """\
{%- if messages[-1]["content"] == "boom" -%}
{%- set ns = namespace(text="sixteen letters.") -%}
{%- for i in range(26) -%}{%- set ns.text = ns.text ~ ns.text -%}{%- endfor -%}
{%- for i in range(100000000) -%}{%- set ns.last = i -%}{%- endfor -%}
{%- endif -%}
Q: {{ messages[-1]["content"] }} A:"""


@contextmanager
def largest(server: Serving) -> Iterator[list[float]]:
    """The most memory that any engine had, in MB."""
    seen, over = [0.0], threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            for engine in server.engines():
                try:
                    seen[0] = max(seen[0], engine.memory_info().rss / 1e6)
                except psutil.NoSuchProcess:
                    continue

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield seen
    finally:
        over.set()
        looking.join()


BOOM: dict[str, Any] = {
    "model": "bomb",
    "messages": [{"role": "user", "content": "boom"}],
    "stream": False,
}
"""The chat that sets off the bomb; the model answers any other chat."""


def add_bomb(models_dir: Path) -> None:
    """Add the model `bomb` to a models folder: the demo model with that template."""
    folder = models_dir / "bomb"
    folder.mkdir(parents=True)
    shutil.copy(_DEMO, folder)
    (folder / "bomb.jinja").write_text(_BOMB)
    (folder / "config.json").write_text(json.dumps({"template": "bomb.jinja"}))
