"""An engine that one request makes grow far beyond what its model needs."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

import myllm
from myllm.engine.types import Engine
from tests.api.events import post
from tests.hostile.attacks import others_are_served
from tests.serving import Serving, serving

DEMO = Path(myllm.__file__).parent / "models/builtin/demo/demo.gguf"
BOMB = """\
{%- if messages[-1]["content"] == "boom" -%}
{%- set ns = namespace(text="sixteen letters.") -%}
{%- for i in range(26) -%}{%- set ns.text = ns.text ~ ns.text -%}{%- endfor -%}
{%- for i in range(100000000) -%}{%- set ns.last = i -%}{%- endfor -%}
{%- endif -%}
Q: {{ messages[-1]["content"] }} A:"""
# The demo model's engine takes less than 100 MiB; the bomb holds 1 GiB, and copies of it.
LARGEST_MB = 6000


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


@pytest.mark.more
def test_a_template_bomb_ends_its_engine_and_not_the_answers_of_others(
    engine: Engine, home: Path
) -> None:
    folder = home / "models" / "bomb"
    folder.mkdir(parents=True)
    shutil.copy(DEMO, folder)
    (folder / "bomb.jinja").write_text(BOMB)
    (folder / "config.json").write_text(json.dumps({"template": "bomb.jinja"}))

    with serving(home, threads=1) as server, server.client(120) as api, server.client(120) as other:

        def ask(content: str) -> str:
            body = {"model": "bomb", "messages": [{"role": "user", "content": content}]}
            options = {"temperature": 0, "max_tokens": 20}
            whole = post(other, "/api/chat", **body, stream=False, options=options)
            return str(whole["message"]["content"])

        undisturbed = ask("What is the capital of France?")
        boom = {"model": "bomb", "messages": [{"role": "user", "content": "boom"}]}
        with (
            others_are_served(server),
            largest(server) as most,
            ThreadPoolExecutor(1) as pool,
        ):
            attack = pool.submit(api.post, "/api/chat", json=boom | {"stream": False})
            while not attack.done():
                assert ask("What is the capital of France?") == undisturbed
            assert attack.result().status_code in (400, 500)
        assert "engine too large" in server.log
        assert most[0] < LARGEST_MB
        [shown] = api.get("/api/instances").json()["instances"]
        assert "MiB of memory, where" in shown["last_error"]
        assert shown["memory"]["estimated_mb"] < 1000
