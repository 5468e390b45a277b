"""Which models are loaded at the start, stay loaded, or are evicted for others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import httpx

import myllm
from myllm.engine.engine import Engine
from tests.serving import serving, wait_until

DEMO = Path(myllm.__file__).parent / "models/builtin/demo/demo.gguf"


def copy_of_demo(home: Path, name: str, **engine: object) -> None:
    folder = home / "models" / name
    folder.mkdir(parents=True)
    shutil.copy(DEMO, folder)
    (folder / "config.json").write_text(json.dumps({"engine": engine}))


def loaded(api: httpx.Client) -> set[str]:
    return {name for name, state in api.get("/health").json()["models"].items() if state == "ready"}


def ask(api: httpx.Client, model: str, **more: object) -> None:
    body = {"model": model, "prompt": "x", "stream": False, "options": {"max_tokens": 1}} | more
    answer = api.post("/api/generate", json=body)
    assert answer.status_code == 200, answer.text


def test_what_is_to_be_there_from_the_start_is_loaded_without_a_request(
    engine: Engine, home: Path
) -> None:
    copy_of_demo(home, "early", preload=True)
    copy_of_demo(home, "late")
    with serving(home) as server, server.client() as api:
        wait_until(lambda: loaded(api) == {"early"}, 30, "the model to be loaded")


def test_a_cap_on_engines_evicts_the_least_recently_used_but_not_a_pinned_one(
    engine: Engine, home: Path
) -> None:
    copy_of_demo(home, "pinned", pinned=True)
    copy_of_demo(home, "other")
    with serving(home, max_loaded_models=2) as server, server.client() as api:
        for model in ("pinned", "demo"):
            ask(api, model)
        assert loaded(api) == {"pinned", "demo"}
        ask(api, "other")
        assert loaded(api) == {"pinned", "other"}
        shown = {each["model"]: each for each in api.get("/api/instances").json()["instances"]}
        assert shown["pinned"]["pinned"]
        assert shown["pinned"]["expires_at"] is None
        assert shown["other"]["expires_at"]


def test_keep_alive_of_the_model_and_of_the_request(engine: Engine, home: Path) -> None:
    copy_of_demo(home, "short", keep_alive="100ms")
    with serving(home, keep_alive="1h") as server, server.client() as api:
        ask(api, "demo")
        ask(api, "short")
        wait_until(lambda: loaded(api) == {"demo"}, 20, "the short one to be gone")
        ask(api, "demo", keep_alive=0)
        wait_until(lambda: loaded(api) == set(), 20, "the other one to be gone")
        refused = api.post("/api/models/demo/load", json={"keep_alive": "soon"})
        assert refused.status_code == 400
        assert refused.json()["detail"].startswith("keep_alive must be seconds, or a text")


def test_a_failed_load_for_memory_is_tried_once_more_with_half_the_context(
    engine: Engine, home: Path
) -> None:
    """The engine's first start finds no memory, as if another program had taken it."""
    wrapper = home / "llama-server"
    wrapper.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *--model*) if [ ! -e {home}/tried ]; then touch {home}/tried\n'
        "  echo '0.00.001 E ggml_backend_alloc: failed to allocate buffer' >&2; exit 1\n"
        f'fi;; esac\nexec {engine.server} "$@"\n'
    )
    wrapper.chmod(0o755)
    with serving(home, llama_server=wrapper) as server, server.client() as api:
        ask(api, "demo")
        [instance] = api.get("/api/instances").json()["instances"]
        assert instance["context_size"] == 1024
        assert instance["restarts"] == 1
        assert "trying a smaller context" in server.log
