"""Engines that are killed, suspended or told to leave behind our back, in every phase: each
client gets its whole answer, the one that an undisturbed engine gives."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

import myllm
from myllm.engine.engine import Engine
from tests.api.events import post
from tests.api.native.test_resume import QUESTIONS, chat
from tests.serving import Serving, serving, short_home, wait_until

HANG_S = 2.0
DEMO = Path(myllm.__file__).parent / "models/builtin/demo/demo.gguf"
Hurt = Callable[[psutil.Process], None]


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with (
        short_home() as path,
        serving(path, slots=8, threads=1, hang_timeout=HANG_S, drain_grace=60) as running,
    ):
        yield running


def suspend(engine: psutil.Process) -> None:
    engine.suspend()


def kill(engine: psutil.Process) -> None:
    engine.kill()


def states(api: httpx.Client) -> list[str]:
    return [each["state"] for each in api.get("/api/instances").json()["instances"]]


class Crowd:
    """Eight clients at once, on one engine that is suspended before its first token."""

    def __init__(self, server: Serving, api: httpx.Client) -> None:
        self._server, self._api = server, api
        self._whole = {
            question: post(api, "/api/chat", **chat(question, stream=False))
            for question in QUESTIONS[:2]
        }

    def ask(self, pool: ThreadPoolExecutor) -> None:
        self._answers = [(QUESTIONS[n % 2], pool.submit(self._one, n % 2)) for n in range(8)]

    def _one(self, number: int) -> dict[str, Any]:
        with self._server.client(120) as client:
            return post(client, "/api/chat", **chat(QUESTIONS[number], stream=False))

    def active(self) -> None:
        wait_until(lambda: self._api.get("/health").json()["active"] == 8, 30, "granted slots")

    def all_whole(self) -> None:
        for question, answer in self._answers:
            assert answer.result()["message"] == self._whole[question]["message"]


def held_while_loading(server: Serving) -> psutil.Process:
    """Return the next engine, suspended as soon as it starts."""
    wait_until(lambda: bool(server.engines()), 20, "an engine")
    [engine] = server.engines()
    engine.suspend()
    return engine


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("phase", ["loading", "reading", "draining"])
@pytest.mark.more
def test_eight_clients_and_an_engine_that_fails_before_a_token(
    server: Serving, api: httpx.Client, phase: str, number: signal.Signals
) -> None:
    crowd = Crowd(server, api)
    with ThreadPoolExecutor(9) as pool, server.client() as other:
        if phase == "loading":
            post(api, "/api/models/demo/unload?force=true")
            crowd.ask(pool)
            engine = held_while_loading(server)
            assert states(api) == ["loading"]
        else:
            [engine] = server.engines()
            engine.suspend()
            crowd.ask(pool)
            crowd.active()
        if phase == "draining":
            unload = pool.submit(other.post, "/api/models/demo/unload?force=true")
            wait_until(lambda: states(api) == ["draining"], 10, "it drains")
        engine.send_signal(number)
        crowd.all_whole()
        assert not engine.is_running()
        if phase == "draining":
            assert unload.result().status_code == 200


@pytest.fixture
def big(engine: Engine, big_model: Path) -> Iterator[Serving]:
    with short_home() as path:
        (path / "models").mkdir()
        (path / "models" / "big").symlink_to(big_model.parent)
        with serving(path, hang_timeout=HANG_S) as running:
            yield running


@pytest.mark.parametrize("hurt", [kill, suspend])
@pytest.mark.more
def test_in_the_middle_of_a_long_prompt(big: Serving, hurt: Hurt) -> None:
    with big.client() as api, ThreadPoolExecutor(1) as pool:
        body = {"model": "big", "prompt": "hi " * 500, "stream": False}
        answer = pool.submit(
            lambda: api.post("/api/generate", json=body | {"options": {"max_tokens": 5}})
        )
        with big.client() as other:
            health = lambda: other.get("/health").json()  # noqa: E731
            wait_until(lambda: health()["active"] == 1, 60, "a granted slot")
        time.sleep(0.5)
        [engine] = big.engines()
        hurt(engine)
        assert answer.result(150).json()["usage"]["completion_tokens"] == 5
        assert not engine.is_running()


def test_a_model_whose_engine_always_dies_backs_off_and_others_go_on(
    server: Serving, api: httpx.Client
) -> None:
    broken = server.models_dir / "broken"
    broken.mkdir(parents=True)
    shutil.copy(DEMO, broken)
    (broken / "wrong.jinja").write_text("{% for %}")  # which only the engine finds out
    (broken / "config.json").write_text('{"template": "wrong.jinja"}')
    body = {"model": "broken", "prompt": "x", "stream": False}
    began = time.monotonic()
    answers = [api.post("/api/generate", json=body) for _ in range(6)]
    assert [each.status_code for each in answers] == [500] * 5 + [503]
    assert int(answers[-1].headers["retry-after"]) > 0
    [shown] = [
        each for each in api.get("/api/instances").json()["instances"] if each["model"] == "broken"
    ]
    assert (shown["state"], shown["strikes"]) == ("backing off", 5)
    assert shown["last_error"] in answers[-1].json()["detail"]
    post(api, "/api/chat", **chat(QUESTIONS[0], stream=False))
    assert time.monotonic() - began < 60


def test_an_engine_that_dies_of_an_illegal_instruction_is_tried_twice_and_named(
    engine: Engine, home: Path
) -> None:
    wrapper = home / "llama-server"
    wrapper.write_text(
        f'#!/bin/sh\ncase "$*" in *--model*) echo x >> {home}/starts; kill -ILL $$;; esac\n'
        f'exec {engine.server} "$@"\n'
    )
    wrapper.chmod(0o755)
    with serving(home, llama_server=wrapper) as server, server.client() as api:
        answer = api.post("/api/chat", json=chat(QUESTIONS[0], stream=False))
    assert answer.status_code == 503
    detail = answer.json()["detail"]
    assert "was killed by SIGILL while loading (an illegal instruction, most likely of" in detail
    assert "run 'myllm engine check'" in detail
    assert (home / "starts").read_text() == "x\n" * 2
