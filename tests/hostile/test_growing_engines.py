"""An engine that grows far beyond the needs of its model because of one request."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from myllm.engine.engine import Engine
from tests.api.events import post
from tests.hostile.attacks import others_are_served
from tests.hostile.bomb import BOOM, add_bomb, largest
from tests.serving import serving

# The demo model's engine takes less than 100 MiB; the bomb builds a text of 1 GiB and copies it.
LARGEST_MB = 6000


@pytest.mark.more
def test_a_template_bomb_ends_its_engine_but_no_other_answer(engine: Engine, home: Path) -> None:
    add_bomb(home / "models")
    with serving(home, threads=1) as server, server.client(120) as api, server.client(120) as other:

        def ask(content: str) -> str:
            body = {"model": "bomb", "messages": [{"role": "user", "content": content}]}
            options = {"temperature": 0, "max_tokens": 20}
            whole = post(other, "/api/chat", **body, stream=False, options=options)
            return str(whole["message"]["content"])

        undisturbed = ask("What is the capital of France?")
        with (
            others_are_served(server),
            largest(server) as most,
            ThreadPoolExecutor(1) as pool,
        ):
            attack = pool.submit(api.post, "/api/chat", json=BOOM)
            while not attack.done():
                assert ask("What is the capital of France?") == undisturbed
            assert attack.result().status_code in (400, 500)
        assert "engine too large" in server.log
        assert most[0] < LARGEST_MB
        [shown] = api.get("/api/instances").json()["instances"]
        assert "MiB of memory, where" in shown["last_error"]
        assert shown["memory"]["estimated_mb"] < 1000
