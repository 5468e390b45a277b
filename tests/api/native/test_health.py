"""What `GET /health` shows. That it needs no key is tested in `http/test_key_check.py`, and what it
counts as incidents in `tests/test_loop_watch.py` and `tests/hostile/test_loops.py`."""

from __future__ import annotations

import httpx

from tests.api.events import post

HI = [{"role": "user", "content": "Hello"}]


def test_health_shows_the_engines_that_run(api: httpx.Client) -> None:
    post(api, "/api/chat", model="demo", messages=HI, stream=False)
    health = api.get("/health").json()
    assert health["status"] == "healthy"
    assert health["models"]["demo"] == "ready"
    assert (health["queued"], health["active"]) == (0, 0)
