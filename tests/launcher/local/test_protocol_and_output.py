"""The meaning of the lines that an engine prints."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import pytest

from myllm.launcher.local.child_protocol import parse_state
from myllm.launcher.local.environment import engine_environment
from myllm.launcher.local.output import KEPT_LINES, LOG_BYTES, EngineOutput
from myllm.launcher.media_marker import MEDIA_MARKER


def report(state: str, **payload: object) -> str:
    return "cmd_child_to_router:state:" + json.dumps({"state": state, "payload": payload})


def test_progress_counts_all_stages() -> None:
    line = report("loading", stages=["text_model", "mmproj"], current="mmproj", value=0.5)
    state = parse_state(line)
    assert state is not None
    assert (state.state, state.progress) == ("loading", 0.75)


def test_ready_and_other_lines() -> None:
    state = parse_state(report("ready", n_ctx=1))
    assert state is not None
    assert state.state == "ready"
    assert parse_state("0.00 I something else") is None


@pytest.mark.parametrize("rest", ["", "{", "[]", '{"state": "loading", "payload": 3}', "null"])
def test_a_malformed_report_is_ignored(rest: str) -> None:
    state = parse_state("cmd_child_to_router:state:" + rest)
    assert state is None or state.progress is None


def test_the_cause_is_the_first_error_without_the_functions_name(tmp_path: Path) -> None:
    output = EngineOutput(tmp_path / "logs" / "x.log")
    output.begin(1234)
    output.add(["0.00.001.000 I srv  llama_server: initializing ..."])
    output.add(["0.00.004.895 E gguf_init_from_reader: invalid magic characters: '----'"])
    output.add(["0.00.005.274 E srv  llama_server: exiting due to model loading error"])
    output.close()
    assert output.cause() == "invalid magic characters: '----'"
    assert output.tail()[0].endswith("initializing ...")
    started, printed, *_ = output.log.read_text().splitlines()
    assert re.fullmatch(r"==== 20\S+T\S+\+00:00 engine started, pid 1234 ====", started)
    assert printed.endswith("initializing ...")


def test_only_the_last_lines_stay_in_memory(tmp_path: Path) -> None:
    output = EngineOutput(tmp_path / "x.log")
    for number in range(KEPT_LINES + 5):
        output.add([f"line {number}"])
    output.close()
    assert output.tail()[0] == "line 5"
    assert output.cause() is None


def test_only_the_owner_can_read_logs(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("an older version has written this\n")
    log.chmod(0o644)
    output = EngineOutput(log)
    line = "x" * 1000
    for _ in range(LOG_BYTES // 100_000 + 1):
        output.add([line] * 100)
    output.close()
    assert {path.name for path in tmp_path.iterdir()} == {"x.log", "x.log.1"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_the_engine_sees_no_secret_and_no_stray_option() -> None:
    seen = engine_environment(
        {"PATH": "/bin", "HF_TOKEN": "s", "LLAMA_ARG_CTX_SIZE": "1", "CUDA_VISIBLE_DEVICES": "0"}
    )
    ours = {"LLAMA_SERVER_ROUTER_PORT": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    ours["GOMP_SPINCOUNT"] = "10000"
    ours["GLIBC_TUNABLES"] = "glibc.malloc.tcache_count=200"
    ours["LLAMA_MEDIA_MARKER"] = MEDIA_MARKER
    assert seen == {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "0", **ours}


@pytest.mark.parametrize("name", ["GOMP_SPINCOUNT", "GLIBC_TUNABLES"])
def test_the_operators_tuning_of_libraries_is_kept(name: str) -> None:
    assert engine_environment({name: "5"})[name] == "5"
