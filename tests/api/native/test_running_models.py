"""A running model depends only on what it was started with, and not on later changes on disk."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from myllm.engine.engine import Engine
from myllm.models.gguf import read_header
from tests.api.events import detail, parse, post
from tests.api.shared.test_names import FORMS, HI
from tests.ggufs import write_model
from tests.projectors import write_projector
from tests.serving import Serving, environment, serving, short_home, wait_until
from tests.terminals import on_terminal
from tests.toys import DEMO, add_toy

# The disk is looked at every two seconds, on a machine that may be busy.
NOTICED_S = 30
NAMES = ("toy", "gpt-4o:latest")
TEMPLATE = "chat.jinja"


def add_templated(models: Path) -> Path:
    """The demo model whose template is a file in its folder, with an alias."""
    folder = add_toy(models, aliases=["gpt-4o"], template=TEMPLATE, context_size=512)
    text = read_header(DEMO / "demo.gguf").chat_template
    assert text is not None
    (folder / TEMPLATE).write_text(text)
    return folder


def configure(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _break_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"context_size": 512,,}')


def _pipe_for_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


def _garble_template(folder: Path) -> None:
    (folder / TEMPLATE).write_bytes(b"\xff\xfe{{ messages }}")


def _take_the_alias(folder: Path) -> None:
    configure(folder, aliases=["other"])
    shutil.copytree(folder, folder.with_name("aaa"))
    configure(folder.with_name("aaa"), aliases=["gpt-4o"])


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a typing error": (_break_config, "config.json is not valid JSON"),
    "a pipe as config": (_pipe_for_config, "config.json is not a regular file"),
    "another config": (lambda f: configure(f, engine={"slots": 1}), "config.json has changed"),
    "a second GGUF": (lambda f: write_model(f / "b.gguf"), "more than one model"),
    "another GGUF": (lambda f: write_model(f / "demo.gguf"), "demo.gguf has been replaced"),
    "a cut GGUF": (lambda f: (f / "demo.gguf").write_bytes(b"GGUF"), "demo.gguf is truncated"),
    "no GGUF": (lambda f: (f / "demo.gguf").unlink(), "holds no GGUF file"),
    "a garbled template": (_garble_template, "chat.jinja is not a text in UTF-8"),
    "another template": (lambda f: (f / TEMPLATE).write_text("{{ 1 }}"), "chat.jinja has changed"),
    "no template": (lambda f: (f / TEMPLATE).unlink(), "chat.jinja does not exist"),
    "a projector": (lambda f: write_projector(f / "mmproj-x.gguf"), "mmproj-x.gguf has been added"),
    "no folder": (shutil.rmtree, "toy is gone"),
    "another name": (lambda f: f.rename(f.with_name("renamed")), "toy is gone"),
    "a file as folder": (lambda f: (shutil.rmtree(f), f.write_text("")), "toy is gone"),
    "an alias moved": (_take_the_alias, "config.json has changed"),
    "the alias a name": (lambda f: shutil.copytree(f, f.with_name("gpt-4o")), ""),
}

OFTEN = ("a typing error", "a second GGUF", "no template", "no folder", "an alias moved")


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as home:
        add_templated(home / "models")
        with serving(home, drain_grace=1, stop_grace=1) as running:
            with running.client() as api:
                post(api, "/api/chat", model="toy", messages=HI, stream=False)
                post(api, "/api/embeddings", model="toy", input="Hello")
            yield running


@pytest.fixture
def folder(server: Serving) -> Iterator[Path]:
    """The model's folder, which is restored after the test."""
    folder = server.models_dir / "toy"
    kept = server.home / "kept"
    shutil.copytree(folder, kept)
    yield folder
    shutil.rmtree(server.models_dir)
    server.models_dir.mkdir()
    kept.rename(folder)


def warnings(api: httpx.Client, model: str = "toy") -> list[str]:
    shown = api.get("/api/instances").json()["instances"]
    return [each for one in shown if one["model"] == model for each in one["warnings"]]


@pytest.mark.parametrize(
    "damage",
    [each if each in OFTEN else pytest.param(each, marks=pytest.mark.more) for each in DAMAGES],
)
def test_no_dialect_notices_what_becomes_of_the_folder(
    server: Serving, api: httpx.Client, folder: Path, damage: str
) -> None:
    engines = {engine.pid for engine in server.engines()}
    assert len(engines) == 2
    damage_it, _ = DAMAGES[damage]
    damage_it(folder)
    for name in NAMES:
        for path, body in FORMS.items():
            answer = api.post(path, json={"model": name, **body})
            assert answer.status_code == 200, (path, name, answer.text)
        shown = api.get(f"/api/models/{name}").json()
        assert (shown["name"], shown["loaded"], shown["context_size"]) == ("toy", True, 512)
        assert api.get(f"/v1/models/{name}").status_code == 200
        assert api.get(f"/upstream/{name}/props").json()["model_alias"] == "toy"
    assert post(api, "/completion", prompt="Hello", n_predict=1)["content"], "no name, one model"
    assert {engine.pid for engine in server.engines()} == engines


@pytest.mark.parametrize("damage", ["a typing error", "a garbled template", "a cut GGUF"])
def test_a_broken_model_affects_only_itself(api: httpx.Client, folder: Path, damage: str) -> None:
    broken = folder.with_name("broken")
    shutil.copytree(folder, broken)
    DAMAGES[damage][0](broken)
    listed = {model["name"]: model for model in api.get("/api/models").json()["models"]}
    assert DAMAGES[damage][1] in listed["broken"]["problem"]
    assert {"demo", "toy"} <= set(listed)
    assert "problem" not in listed["toy"]
    for route in ("/v1/models", "/ollama/api/tags"):
        assert api.get(route).status_code == 200
    assert DAMAGES[damage][1] in detail(api.get("/api/models/broken"), 500)


@pytest.mark.parametrize("damage", ["a typing error", "another GGUF"])
def test_a_difference_is_a_warning_until_it_is_gone(
    server: Serving, api: httpx.Client, folder: Path, damage: str
) -> None:
    wait_until(lambda: warnings(api) == [], NOTICED_S, "none, after the test before")
    before = api.get("/api/models/toy").json()
    DAMAGES[damage][0](folder)
    wait_until(lambda: len(warnings(api)) == 2, NOTICED_S, "a warning for each engine")
    words = DAMAGES[damage][1]
    assert all(words in warning for warning in warnings(api))
    shown = api.get("/api/models/toy").json()
    assert shown == before | {"warnings": [warnings(api)[0]]}, "what answers, not what is on disk"
    logged = [line for line in server.log.splitlines() if words in line]
    time.sleep(3)
    assert [line for line in server.log.splitlines() if words in line] == logged
    shutil.rmtree(folder)
    shutil.copytree(server.home / "kept", folder)
    wait_until(lambda: warnings(api) == [], NOTICED_S, "no warning any more")


def myllm(server: Serving, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = environment(server.home, port=server.url.rsplit(":", 1)[1])
    line = [sys.executable, "-m", "myllm", *arguments]
    return subprocess.run(line, env=env, capture_output=True, text=True, timeout=60)


def test_the_command_line_shows_what_runs_and_what_has_changed(
    server: Serving, api: httpx.Client, folder: Path
) -> None:
    before = api.get("/api/models/toy").json()
    write_model(folder / "demo.gguf")
    wait_until(lambda: len(warnings(api)) == 2, NOTICED_S, "a warning for each engine")
    [warning] = {*warnings(api)}
    assert f"warning: toy: {warning}" in myllm(server, "ps").stderr
    port = server.url.rpartition(":")[2]
    with on_terminal(environment(server.home, port=port), "ps", "--watch", columns=500) as (_, eye):
        seen = b""
        while f"warning: toy: {warning}".encode() not in seen:
            seen += os.read(eye, 4096)
    assert f"warning: {warning}" in myllm(server, "show", "toy").stderr
    shown = json.loads(myllm(server, "show", "gpt-4o", "--json").stdout)
    assert shown == before | {"warnings": [warning]}
    shutil.rmtree(folder)
    assert json.loads(myllm(server, "show", "toy", "--json").stdout)["digest"] == before["digest"]


def test_a_built_in_model_is_refused_before_it_is_unloaded(
    server: Serving, api: httpx.Client
) -> None:
    post(api, "/api/models/demo/load")
    ended = myllm(server, "remove", "demo", "--yes")
    assert (ended.returncode, "comes with MyLLM" in ended.stderr) == (1, True)
    assert api.get("/api/models/demo").json()["loaded"] is True
    post(api, "/api/models/demo/unload")


def test_a_reload_takes_in_what_is_on_disk(server: Serving, api: httpx.Client) -> None:
    folder = add_toy(server.models_dir, "changing", parameters={"max_tokens": 3})
    body = {"model": "changing", "messages": HI, "stream": False}
    assert post(api, "/api/chat", **body)["usage"]["completion_tokens"] == 3
    configure(folder, parameters={"max_tokens": 5})
    assert post(api, "/api/chat", **body)["usage"]["completion_tokens"] == 3
    wait_until(lambda: len(warnings(api, "changing")) == 1, NOTICED_S, "a warning")
    assert "run 'myllm reload changing' to apply the change" in warnings(api, "changing")[0]
    [pid] = [each.pid for each in server.engines() if "changing" in each.cmdline()]
    post(api, "/api/models/changing/reload")
    wait_until(lambda: pid not in [each.pid for each in server.engines()], 30, "a new engine")
    assert post(api, "/api/chat", **body)["usage"]["completion_tokens"] == 5
    assert warnings(api, "changing") == []
    post(api, "/api/models/changing/unload")


def test_an_operation_that_is_refused_changes_nothing(
    server: Serving, api: httpx.Client, folder: Path
) -> None:
    engines = {engine.pid for engine in server.engines()}
    blocked = server.models_dir / ".removed"
    blocked.write_text("so that nothing can be moved there")
    assert "cannot be removed" in detail(api.delete("/api/models/toy"), 500)
    assert "is an alias" in detail(api.delete("/api/models/gpt-4o", params={"force": "1"}), 409)
    blocked.unlink()
    _break_config(folder)
    assert "config.json" in detail(api.post("/api/models/toy/reload"), 500)
    assert "was loaded already" in post(api, "/api/models/toy/load")["message"]
    post(api, "/api/reload")
    assert (folder / "demo.gguf").exists()
    post(api, "/api/chat", model="toy", messages=HI, stream=False)
    assert {engine.pid for engine in server.engines()} == engines


def statuses_until(server: Serving, over: threading.Event) -> list[int]:
    """Return the answers to a client that requests `toy` again and again."""
    statuses: list[int] = []
    body = {"model": "toy", "prompt": "x", "stream": False}
    with server.client() as client:
        while not (over.is_set() and statuses):
            statuses.append(client.post("/api/generate", json=body).status_code)
    return statuses


@pytest.fixture
def brief(engine: Engine) -> Iterator[Serving]:
    """A server that gives running answers and ending engines little time."""
    with short_home() as home, serving(home, drain_grace=0.5, stop_grace=0.5) as running:
        yield running


def test_a_forced_removal_leaves_no_engine_behind(brief: Serving) -> None:
    for _ in range(3):
        folder = add_toy(brief.models_dir, engine={"slots": 1})
        over = threading.Event()
        with brief.client() as api, ThreadPoolExecutor(12) as pool:
            post(api, "/api/models/toy/load")
            brief.engines()[0].suspend()  # or else no request would wait
            asked = [pool.submit(statuses_until, brief, over) for _ in range(12)]
            wait_until(lambda: api.get("/health").json()["queued"] >= 8, 30, "a queue")
            answer = api.delete("/api/models/toy", params={"force": "true"})
            over.set()
            assert answer.status_code == 200, answer.text
            statuses = [status for each in asked for status in each.result(30)]
            assert set(statuses) <= {404, 503}, "refused, or cut behind the grace"
            assert statuses.count(503) == 1
            assert not folder.exists()
            assert list(brief.models_dir.iterdir()) == []
            assert brief.engines() == []
            assert api.get("/api/instances").json()["instances"] == []


@pytest.mark.more
def test_a_waiting_stream_ends_with_the_removal(brief: Serving) -> None:
    folder = add_toy(brief.models_dir, engine={"slots": 1})
    body = {"model": "toy", "messages": HI}
    with brief.client() as api, brief.client() as other:
        post(api, "/api/models/toy/load")
        brief.engines()[0].suspend()
        with (
            other.stream("POST", "/api/chat", json=body) as first,
            other.stream("POST", "/api/chat", json=body) as second,
        ):
            assert "is answering 2 request" in detail(api.delete("/api/models/toy"), 409)
            assert folder.exists()
            assert api.delete("/api/models/toy", params={"force": "true"}).status_code == 200
            lines = [
                [line for line in each.iter_lines() if "data:" in line] for each in (first, second)
            ]
    ends = [parse(told[-1]) for told in lines]
    assert sorted(end["code"] for end in ends) == [404, 503]
    [removed] = [end["error"] for end in ends if end["code"] == 404]
    assert removed == "Model 'toy' was removed while the request waited for it"
