"""What `GET /health` and the paths below it show. That they need no key is tested in
`http/test_key_check.py`, and what counts as an incident in `tests/test_loop_watch.py` and
`tests/hostile/test_loops.py`."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from myllm.api.shared.readiness import NO_ENGINE, NO_STORE
from myllm.engine.engine import Engine
from tests.api.events import post
from tests.postgres import postgres_server, stop_postgres
from tests.serving import serving, stop, wait_until

CHAT: dict[str, Any] = {
    "model": "demo",
    "messages": [{"role": "user", "content": "Hello"}],
    "stream": False,
}


def test_health_shows_the_engines_that_run(api: httpx.Client) -> None:
    post(api, "/api/chat", **CHAT)
    health = api.get("/health").json()
    assert health["status"] == "healthy"
    assert health["models"]["demo"] == "ready"
    assert (health["queued"], health["active"]) == (0, 0)


def test_a_server_without_a_loaded_model_is_alive_and_ready(engine: Engine, home: Path) -> None:
    with serving(home) as server, server.client() as api:
        assert api.get("/health/live").json() == {"status": "alive"}
        wait_until(lambda: _missing(api) == [], 10, "ready")
        assert api.get("/health").json()["models"] == {}


def test_without_its_engine_a_server_is_not_ready(engine: Engine, home: Path) -> None:
    link = home / "llama-server"
    link.symlink_to(engine.server)
    with serving(home, llama_server=link) as server, server.client() as api:
        wait_until(lambda: _missing(api) == [], 10, "ready")
        link.unlink()
        wait_until(lambda: _missing(api) == [NO_ENGINE], 10, "not ready")
        assert api.get("/health/live").status_code == 200
        link.symlink_to(engine.server)
        wait_until(lambda: _missing(api) == [], 10, "ready again")


@pytest.mark.needs_postgres
def test_without_its_store_a_server_is_not_ready(engine: Engine, home: Path) -> None:
    with (
        postgres_server() as url,
        serving(home, database_url=url) as server,
        server.client() as api,
    ):
        wait_until(lambda: _missing(api) == [], 10, "ready")
        stop_postgres(url, signal.SIGKILL)
        wait_until(lambda: _missing(api) == [NO_STORE], 20, "not ready")
        assert "looking at the store" in server.log


def test_a_server_that_stops_is_alive_but_not_ready(engine: Engine, home: Path) -> None:
    with serving(home, drain_grace=30) as server, server.client() as api:
        post(api, "/api/models/demo/load")
        [process] = server.engines()
        process.suspend()
        with ThreadPoolExecutor(2) as pool, server.client() as other:
            running = pool.submit(other.post, "/api/chat", json=CHAT)
            wait_until(lambda: api.get("/health").json()["active"] == 1, 20, "a running answer")
            leaving = pool.submit(stop, server.process)
            wait_until(lambda: _missing(api) == ["server: it is stopping"], 20, "not ready")
            assert api.get("/health/live").status_code == 200
            process.resume()
            assert (running.result().status_code, leaving.result()) == (200, 0)


def _missing(api: httpx.Client) -> list[str]:
    """What the server lacks; the status must fit."""
    answer = api.get("/health/ready")
    missing: list[str] = answer.json().get("missing", [])
    expected = (503, "not ready") if missing else (200, "ready")
    assert (answer.status_code, answer.json()["status"]) == expected
    return missing
