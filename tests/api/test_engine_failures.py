"""Engines that are killed, suspended or told to leave behind our back, in every phase: each
client gets its whole answer, the one that an undisturbed engine gives."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

import myllm
from myllm.engine.types import Engine
from tests.api.events import post
from tests.api.test_resume import QUESTIONS, chat
from tests.serving import Serving, serving, short_home, wait_until

HANG_S = 2.0
DEMO = Path(myllm.__file__).parent / "models/builtin/demo/demo.gguf"
Hurt = Callable[[psutil.Process], None]


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as path, serving(path, threads=1, hang_timeout=HANG_S) as running:
        yield running


def suspend(engine: psutil.Process) -> None:
    engine.suspend()


def kill(engine: psutil.Process) -> None:
    engine.kill()


def states(api: httpx.Client) -> list[str]:
    return [each["state"] for each in api.get("/api/instances").json()["instances"]]


def test_while_it_drains(server: Serving, api: httpx.Client) -> None:
    whole = post(api, "/api/chat", **chat(QUESTIONS[0], stream=False))
    [engine] = server.engines()
    engine.suspend()
    with ThreadPoolExecutor(2) as pool, server.client() as client, server.client() as other:
        answer = pool.submit(post, client, "/api/chat", **chat(QUESTIONS[0], stream=False))
        wait_until(lambda: api.get("/health").json()["active"] == 1, 20, "a granted slot")
        unload = pool.submit(other.post, "/api/models/demo/unload?force=true")
        wait_until(lambda: states(api) == ["draining"], 10, "it drains")
        engine.kill()
        assert answer.result()["message"] == whole["message"]
        assert unload.result().status_code == 200


@pytest.fixture
def big(engine: Engine, big_model: Path) -> Iterator[Serving]:
    with short_home() as path:
        (path / "models").mkdir()
        (path / "models" / "big").symlink_to(big_model.parent)
        with serving(path, hang_timeout=HANG_S) as running:
            yield running


@pytest.mark.parametrize("hurt", [kill, suspend])
@pytest.mark.parametrize("phase", ["loading", "reading"])
def test_before_the_first_token(big: Serving, phase: str, hurt: Hurt) -> None:
    with big.client() as api, ThreadPoolExecutor(1) as pool:
        body = {"model": "big", "prompt": "hi " * 500, "stream": False}
        answer = pool.submit(
            lambda: api.post("/api/generate", json=body | {"options": {"max_tokens": 5}})
        )
        if phase == "loading":
            wait_until(lambda: len(big.engines()) == 1, 20, "an engine")
        else:
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
