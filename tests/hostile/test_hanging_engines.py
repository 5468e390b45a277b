"""Engines that hang in several ways, and conditions that only look like a hang.

The tests attack an engine on its own socket, because the gateway would refuse the requests. Other
clients that wait for this engine still get the same answers as without the attack.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from myllm.engine.engine import Engine
from tests.api.events import post
from tests.api.native.test_resume import QUESTIONS, chat
from tests.fakes.damage import STUCK
from tests.fakes.script import damaging
from tests.hostile.attacks import others_are_served
from tests.hostile.endless import ENDLESS, SOON_S, attacked, is_caught
from tests.serving import Serving, serving, short_home, suspend, wait_until

HANG_S = 3.0


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as home, serving(home, threads=1, hang_timeout=HANG_S) as running:
        yield running


@pytest.fixture
def whole(api: httpx.Client) -> dict[str, Any]:
    """The undisturbed answer; the engine runs from now on."""
    return ask(api)


def ask(api: httpx.Client, question: int = 0) -> dict[str, Any]:
    message: dict[str, Any] = post(api, "/api/chat", **chat(QUESTIONS[question], stream=False))[
        "message"
    ]
    return message


def pid(api: httpx.Client) -> int:
    """The pid of the only engine."""
    [engine] = api.get("/api/instances").json()["instances"]
    return int(engine["pid"])


@pytest.mark.parametrize("kind", ENDLESS)
def test_an_endless_computation_does_not_keep_other_clients_waiting(
    server: Serving, api: httpx.Client, whole: dict[str, Any], kind: str
) -> None:
    [engine] = server.engines()
    socket = server.engine_socket()
    with others_are_served(server), attacked(socket, **ENDLESS[kind]):
        wait_until(lambda: is_caught(socket), SOON_S, "the engine is caught")
        burnt_s = sum(engine.cpu_times()[:2])
        assert ask(api) == whole
    assert not engine.is_running()
    assert burnt_s > 0
    assert "engine hangs" in server.log
    assert "no answer for" in server.log


def test_a_suspended_engine_is_replaced_during_its_answer(
    server: Serving, api: httpx.Client, whole: dict[str, Any]
) -> None:
    [engine] = server.engines()
    with others_are_served(server):
        suspend(engine)
        assert ask(api) == whole
    assert not engine.is_running()


def test_an_engine_that_answers_but_does_not_compute_is_replaced(engine: Engine) -> None:
    with short_home() as home:
        script = damaging(engine, home)
        with (
            serving(home, llama_server=script, threads=1, hang_timeout=2) as server,
            server.client() as api,
        ):
            whole = ask(api)
            before = pid(api)
            (home / "fault").write_text(STUCK)
            with others_are_served(server):
                assert ask(api) == whole
            assert pid(api) != before
            assert "no work for" in server.log
            assert "though it answers" in server.log


def test_a_server_that_was_suspended_does_not_call_its_engine_hung(
    server: Serving, api: httpx.Client, whole: dict[str, Any]
) -> None:
    """As when a machine is suspended: the engine stops, too, and then continues."""
    [engine] = server.engines()
    process = psutil.Process(server.process.pid)
    suspend(engine)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, api)
        time.sleep(HANG_S / 4)
        suspend(process)
        time.sleep(2 * HANG_S)
        process.resume()
        engine.resume()
        assert asked.result(SOON_S) == whole
    assert engine.is_running()


@pytest.mark.more
def test_a_long_batch_on_a_busy_machine_is_no_hang(engine: Engine, big_model: Path) -> None:
    with short_home() as home:
        (home / "models").mkdir()
        (home / "models" / "big").symlink_to(big_model.parent)
        with serving(home, hang_timeout=4) as server, server.client(300) as api:
            post(api, "/api/models/big/load")
            [before] = server.engines()
            options = {"max_tokens": 5}
            body = {"model": "big", "prompt": "hi " * 1000, "stream": False, "options": options}
            busy = [psutil.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(3)]
            try:
                answer = post(api, "/api/generate", **body)
            finally:
                for each in busy:
                    each.kill()
                    each.wait()
            assert answer["usage"]["completion_tokens"] == 5
            assert before.is_running()
