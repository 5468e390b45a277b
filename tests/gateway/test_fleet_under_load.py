"""Short versions of what `benchmarks/fleet.py` measures: their bounds are what must never break,
times are bounded ten times wider than they usually are."""

from __future__ import annotations

import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

import myllm
from benchmarks import cold_loads, crowd, kills, sharing
from benchmarks.figures import Figure
from myllm.engine.engine import Engine
from tests.api.events import post
from tests.serving import serving, stop, wait_until

DEMO = Path(myllm.__file__).parent / "models/builtin/demo/demo.gguf"


def by_name(figures: list[Figure]) -> dict[str, Figure]:
    return {figure.name.strip().split(":")[0]: figure for figure in figures}


@pytest.mark.more
def test_kills_under_load_fail_no_request(engine: Engine) -> None:
    figures = by_name(kills.measure(kills=15))
    for name in ("15 kills", "open files more", "threads more", "engines more"):
        assert figures[name].ok, figures[name]


def test_three_models_share_the_room_of_two(engine: Engine) -> None:
    figures = sharing.measure(clients=20, seconds=6)
    assert all(figure.ok for figure in figures), figures
    loads = by_name(figures)["loads"]
    assert loads.value >= 3


@pytest.mark.more
def test_cold_loads_run_side_by_side(engine: Engine) -> None:
    alone, three, meanwhile = cold_loads.measure()
    assert three.value < 2 * alone.value
    assert meanwhile.value < alone.value


@pytest.mark.more
def test_clients_that_leave_lose_no_slot(engine: Engine) -> None:
    failed, lost, held, idle = crowd.measure_leavers(clients=150, leavers=130)
    assert failed.ok, failed
    assert lost.ok, lost
    assert held.value < 10
    assert idle.value < 10


def test_a_full_queue_refuses_and_health_answers(engine: Engine) -> None:
    figures = crowd.measure_full_queue(crowd=300, queue_size=20)
    statuses, untold, waiting, _, health, _ = figures
    assert statuses.ok, statuses
    assert "x 429" in statuses.note
    assert untold.ok, untold
    assert 0 < waiting.value <= 20
    assert health.value < 0.5


def test_what_can_never_fit_is_refused_with_numbers(engine: Engine, home: Path) -> None:
    with serving(home, memory_budget_mb=20) as server, server.client() as api:
        answer = api.post("/api/generate", json={"model": "demo", "prompt": "x", "stream": False})
        assert answer.status_code == 507
        assert "does not fit: it needs" in answer.json()["detail"]
        assert "the budget is 20 MB" in answer.json()["detail"]


def test_a_changed_configuration_takes_effect_without_a_failed_request(
    engine: Engine, home: Path
) -> None:
    folder = home / "models" / "mine"
    folder.mkdir(parents=True)
    shutil.copy(DEMO, folder)
    config = folder / "config.json"
    config.write_text('{"context_size": 512}')
    over, failed = threading.Event(), []
    body: dict[str, Any] = {
        "model": "mine", "prompt": "Once", "stream": False, "options": {"max_tokens": 40},
    }  # fmt: skip

    with serving(home) as server, server.client() as api, ThreadPoolExecutor(4) as pool:

        def client(_: int) -> int:
            asked = 0
            with server.client() as mine:
                while not over.is_set():
                    answer = mine.post("/api/generate", json=body)
                    asked += 1
                    if answer.status_code != 200:
                        failed.append(answer.text)
            return asked

        def contexts() -> list[int]:
            instances = api.get("/api/instances").json()["instances"]
            return [each["context_size"] for each in instances if each["state"] == "ready"]

        post(api, "/api/generate", **body)
        clients = [pool.submit(client, number) for number in range(4)]
        try:
            for size in (1024, 512, 1024):
                config.write_text(json.dumps({"context_size": size}))
                post(api, "/api/models/mine/reload")
                wait_until(lambda size=size: contexts() == [size], 30, "the new engine alone")  # type: ignore[misc]
        finally:
            over.set()
        assert sum(each.result() for each in clients) > 0
        assert failed == []


def test_a_server_that_gets_sigterm(engine: Engine, home: Path) -> None:
    body = {"model": "demo", "prompt": "Numbers:", "stream": False, "options": {"max_tokens": 9}}
    with serving(home, drain_grace=30) as server, server.client() as api:
        post(api, "/api/generate", **body)
        [process] = server.engines()
        process.suspend()
        with ThreadPoolExecutor(2) as pool, server.client() as other:
            running = pool.submit(other.post, "/api/generate", json=body)
            wait_until(lambda: api.get("/health").json()["active"] == 1, 20, "a running answer")
            leaving = pool.submit(stop, server.process)
            wait_until(lambda: api.get("/health").json()["status"] == "draining", 20, "draining")
            refused = api.post("/api/generate", json=body)
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) > 0
            time.sleep(0.2)
            process.resume()
            assert running.result().status_code == 200
            assert leaving.result() == 0


@pytest.mark.more
def test_an_answer_that_outlasts_the_grace_ends_with_an_error_event(
    engine: Engine, home: Path
) -> None:
    with serving(home, drain_grace=0.5) as server, server.client() as api:
        post(api, "/api/models/demo/load")
        [process] = server.engines()
        with ThreadPoolExecutor(1) as pool, server.client() as other:

            def ask() -> httpx.Response:
                messages = [{"role": "user", "content": "Tell me a long story."}]
                return other.post("/api/chat", json={"model": "demo", "messages": messages})

            process.suspend()
            running = pool.submit(ask)
            wait_until(lambda: api.get("/health").json()["active"] == 1, 20, "a running answer")
            time.sleep(5)  # so that its stream has begun, with a comment
            assert stop(server.process) == 0
            lines = [line for line in running.result().text.splitlines() if "data: " in line]
        end = json.loads(lines[-1].removeprefix("data: "))
        assert end["done"]
        assert end["error"]
