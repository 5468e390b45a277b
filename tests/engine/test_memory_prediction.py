"""The predictions of llama-fit-params for real models, and its failures."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import psutil
import pytest

from myllm.engine.engine import Engine
from myllm.engine.memory_prediction import DeviceNeed, fit_params
from myllm.errors import EngineError
from myllm.models.registry import BUILTIN_DIR

DEMO = BUILTIN_DIR / "demo" / "demo.gguf"


@pytest.fixture
def tool(tmp_path: Path) -> Path:
    """A tool that prints what a test chooses, with `says`."""
    return tmp_path / "llama-fit-params"


def says(tool: Path, script: str) -> Path:
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    return tool


def size_mb(file: Path) -> float:
    return file.stat().st_size / 2**20


async def test_a_real_model_takes_its_weights_and_its_context(engine: Engine) -> None:
    fit = engine.tool("llama-fit-params")
    [one] = await fit_params(fit, ["--model", str(DEMO), "--ctx-size", "2048", "--parallel", "1"])
    [four] = await fit_params(fit, ["--model", str(DEMO), "--ctx-size", "8192", "--parallel", "4"])
    assert one.name == four.name == "Host"
    assert abs(one.model_mb - size_mb(DEMO)) <= 1
    assert four.context_mb == 4 * one.context_mb > 0


async def test_weights_that_are_repacked_for_the_cpu_are_counted(
    engine: Engine, big_model: Path
) -> None:
    fit = engine.tool("llama-fit-params")
    [need] = await fit_params(fit, ["--model", str(big_model), "--ctx-size", "2048"])
    assert need.model_mb == pytest.approx(size_mb(big_model), rel=0.01)


async def test_errors_quote_the_tool(engine: Engine, tmp_path: Path) -> None:
    fit = engine.tool("llama-fit-params")
    # It is random which of its last lines it prints before it aborts.
    words = r"ended with -6: (.*failed to (load model|open GGUF file)|it said nothing)"
    with pytest.raises(EngineError, match=words):
        await fit_params(fit, ["--model", str(tmp_path / "none.gguf")])
    with pytest.raises(EngineError, match="invalid argument: --embeddings"):
        await fit_params(fit, ["--model", str(DEMO), "--embeddings"])
    with pytest.raises(EngineError, match="cannot be run: No such file"):
        await fit_params(tmp_path / "none", [])


async def test_one_line_per_device(tool: Path) -> None:
    says(tool, 'echo "CUDA0 3921 512 300 "; echo "CUDA1 3805 512 265 "; echo "Host 410 0 24 "')
    needs = await fit_params(tool, [])
    assert needs[0] == DeviceNeed("CUDA0", 3921, 512, 300)
    assert [need.name for need in needs] == ["CUDA0", "CUDA1", "Host"]
    assert needs[2].total_mb == 434


async def test_no_figures_are_an_error(tool: Path) -> None:
    with pytest.raises(EngineError, match="no memory figures: 'hello'"):
        await fit_params(says(tool, "echo hello"), [])


async def test_an_inherited_option_does_not_change_the_answer(
    tool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "99")
    [need] = await fit_params(says(tool, 'echo "Host ${LLAMA_ARG_CTX_SIZE:-7} 0 0 "'), [])
    assert need.model_mb == 7


async def test_a_tool_that_hangs_is_ended(tool: Path, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    says(tool, f"echo $$ > {pid_file}; exec sleep 100")
    started = time.monotonic()
    with pytest.raises(EngineError, match=r"no answer in 0.5 s"):
        await fit_params(tool, [], timeout_s=0.5)
    assert time.monotonic() - started < 5
    assert not psutil.pid_exists(int(pid_file.read_text()))


async def test_cancelling_the_caller_ends_the_tool(tool: Path, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    says(tool, f"echo $$ > {pid_file}; exec sleep 100")
    asking = asyncio.create_task(fit_params(tool, []))
    while not (pid_file.exists() and pid_file.read_text()):
        await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not psutil.pid_exists(int(pid_file.read_text()))
