"""A pytest plugin for llama.cpp's server tests: it starts another server for their ServerProcess.

`STAND_IN_SIDE` says which: `llama-server` itself or `myllm`. Both get models of this machine
instead of those that the tests name. Tests with the same settings use one server of MyLLM after
each other, and its model is loaded anew for each.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import types
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from myllm.models.registry import BUILTIN_DIR
from tests.encoders import write_bert, write_gemma2
from tests.ggufs import write_model
from tests.keys import add_keys
from tests.projectors import write_projector
from tests.serving import Serving, serving

sys.modules.setdefault("wget", types.ModuleType("wget"))  # the tests download nothing here
import utils  # noqa: E402  # type: ignore[import-not-found]  # llama.cpp's

_MYLLM: Final = os.environ["STAND_IN_SIDE"] == "myllm"
# Attributes of ServerProcess that MyLLM has no setting for.
_ONLY_THEIRS: Final = (
    *("lora_files", "enable_ctx_shift", "slot_save_path", "spec_type", "model_draft"),
    *("models_dir", "server_tools", "mcp_servers_config", "mcp_servers_json", "model_url"),
    *("sleep_idle_seconds", "gcp_compat", "log_path", "media_path", "no_mmproj", "cors_origins"),
    *("ui_mcp_proxy", "debug"),
)
# llama-server has one model, whatever the tests call it.
_OTHER_NAMES: Final = (
    *("test", "davinci-002", "gpt-3.5-turbo", "gpt-3.5-turbo-instruct", "gpt-4.1"),
    "text-embedding-3-small",
)
_folder: Final = Path(tempfile.mkdtemp(prefix="ml-"))
_running: dict[str, tuple[ExitStack, Serving]] = {}


def _files(server: Any) -> list[Path]:
    """The model that stands in for the one of a test, and its projector if there is one."""
    wanted = f"{server.model_hf_repo}/{server.model_hf_file}"
    made = _folder / "made"
    if "bert-bge" in wanted:
        return [_written(made / "bert/bert.gguf", lambda path: write_bert(path))]
    if "reranker" in wanted:
        return [_written(made / "ranker/bert.gguf", lambda path: write_bert(path, rank=True))]
    if "infill" in wanted:
        return [_written(made / "gemma/gemma.gguf", write_gemma2)]
    if "tinygemma3" in wanted:
        model = _written(made / "eye/eye.gguf", write_model)
        return [model, _written(made / "eye/mmproj-eye.gguf", write_projector)]
    return [BUILTIN_DIR / "demo" / "demo.gguf"]


def _written(path: Path, write: Any) -> Path:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
    return path


def _config(server: Any) -> dict[str, Any]:
    """The config.json that means the same as the options of a ServerProcess."""
    slots = server.n_slots or 1
    parameters = {"temperature": server.temperature, "seed": server.seed}
    if (server.n_predict or 0) > 0:
        parameters["max_tokens"] = server.n_predict
    config: dict[str, Any] = {"parameters": parameters, "engine": {"slots": slots}}
    if server.n_ctx:
        config["context_size"] = server.n_ctx if server.kv_unified else server.n_ctx // slots
    if server.chat_template or server.chat_template_file:
        config["template"] = server.chat_template or "chat.jinja"
    return config


def _start(server: Any, timeout_seconds: int = 60) -> None:
    """Start MyLLM for a test, or use the server of an earlier test with the same settings."""
    theirs = [name for name in _ONLY_THEIRS if getattr(server, name)]
    if theirs or server.reasoning == "off":
        pytest.skip(f"settings of llama-server's command line: {theirs or 'reasoning'}")
    alias, *others = (server.model_alias or "model").split(",")
    files, config = _files(server), _config(server) | {"aliases": [*others, *_OTHER_NAMES]}
    template = server.chat_template_file and Path(server.chat_template_file).read_text()
    key = json.dumps([alias, list(map(str, files)), config, template, server.api_key])
    if key not in _running:
        _stop_all()
        _running[key] = _served(alias, files, config, template, server.api_key)
    running = _running[key][1]
    server.server_port = int(running.url.rsplit(":", 1)[1])
    headers = {"Authorization": f"Bearer {server.api_key}"} if server.api_key else {}
    with running.client() as api:  # its caches and counters begin anew
        api.post(f"/api/models/{alias}/unload", params={"force": "true"}, headers=headers)
        api.post(f"/api/models/{alias}/load", headers=headers)


def _served(
    alias: str, files: list[Path], config: dict[str, Any], template: str | None, key: str | None
) -> tuple[ExitStack, Serving]:
    home = Path(tempfile.mkdtemp(prefix="ml-"))
    folder = home / "models" / alias
    folder.mkdir(parents=True)
    for file in files:
        (folder / file.name).symlink_to(file)
    (folder / "config.json").write_text(json.dumps(config))
    if template:
        (folder / "chat.jinja").write_text(template)
    stack = ExitStack()
    stack.callback(shutil.rmtree, home, ignore_errors=True)
    if key:
        add_keys(home, "admin", tests=key)
    return stack, stack.enter_context(serving(home, may_block=True))


def _stop_all() -> None:
    for stack, _ in _running.values():
        stack.close()
    _running.clear()


def _start_theirs(server: Any, timeout_seconds: int = 60) -> None:
    """Start llama-server with the model that stands in."""
    model, *projector = _files(server)
    server.model_hf_repo = server.model_hf_file = server.model_url = None
    server.offline, server.model_file = False, str(model)
    os.environ.pop("LLAMA_ARG_MMPROJ", None)
    if projector:
        os.environ["LLAMA_ARG_MMPROJ"] = str(projector[0])
    _original_start(server, timeout_seconds)


_original_start: Final = utils.ServerProcess.start
if _MYLLM:
    utils.ServerProcess.start = _start
    utils.ServerProcess.stop = lambda server: None
else:
    utils.ServerProcess.start = _start_theirs
utils.ServerPreset.load_all = staticmethod(lambda: None)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write the outcome of each test as one line."""
    if report.when == "call" or report.outcome != "passed":
        name = report.nodeid.removeprefix("unit/")
        line = json.dumps({"test": name, "outcome": report.outcome})
        with Path(os.environ["STAND_IN_OUTCOMES"]).open("a") as outcomes:
            outcomes.write(line + "\n")


def pytest_sessionfinish() -> None:
    """Stop what still runs."""
    _stop_all()
    shutil.rmtree(_folder, ignore_errors=True)
