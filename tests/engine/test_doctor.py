"""`myllm doctor` and `myllm engine`: their findings, and their output for scripts."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from myllm.cli.build_progress import show_progress
from myllm.cli.doctor import doctor
from myllm.cli.engine import engine_app, ensure_engine_with_progress
from myllm.cli.machine_checks import cache_disk, disk, model_folder, port
from myllm.engine.build import BuildOptions, build_engine
from myllm.engine.doctor_checks import Check, engine_checks
from myllm.engine.engine import Engine
from myllm.engine.progress import Progress
from myllm.settings import Settings
from tests.engine.conftest import MakeSettings
from tests.engine.llama import write_server, write_working_tree


class _Globals:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def settings(self) -> Settings:
        return self._settings


def _check(settings: Settings, name: str) -> Check:
    return next(check for check in engine_checks(settings) if check.name == name)


def test_json_and_exit_code_show_what_is_unusable(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    app = typer.Typer()
    app.command()(doctor)
    server = write_server(tmp_path / "llama-server")
    settings = make_settings(llama_server=server, port=0)
    good = CliRunner().invoke(app, ["--json"], obj=_Globals(settings))
    assert good.exit_code == 0, good.output
    names = [check["name"] for check in json.loads(good.output)["checks"]]
    assert names == [
        *("engine", "source", "compiler", "cmake", "cuda"),
        *("memory", "cache disk", "model disk", "model folder", "port"),
    ]
    server.chmod(0o644)
    bad = CliRunner().invoke(app, [], obj=_Globals(settings))
    assert bad.exit_code == 1
    assert "✗ engine" in bad.output
    assert "chmod +x" in bad.output
    assert "\033[" not in bad.output


def test_no_compiler_fails_only_without_an_engine(
    make_settings: MakeSettings, path_with: Callable[..., Path], tmp_path: Path
) -> None:
    path_with()
    assert _check(make_settings(), "engine").level == "warning"
    without = _check(make_settings(), "compiler")
    assert (without.level, "apt install g++" in without.advice) == ("failed", True)
    server = write_server(tmp_path / "llama-server")
    assert _check(make_settings(llama_server=server), "compiler").level == "warning"


def test_an_old_llama_server_on_path_is_mentioned(
    make_settings: MakeSettings, path_with: Callable[..., Path]
) -> None:
    write_server(path_with() / "llama-server", build=100)
    assert "is too old: build 100" in _check(make_settings(), "engine").finding


def test_the_port() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        number = other.getsockname()[1]
        other.listen()
        taken = port("127.0.0.1", number)
        assert (taken.level, "another program" in taken.finding) == ("failed", True)
    assert port("127.0.0.1", number).level == "ok"
    assert port("192.0.2.1", number).level == "failed"


def test_the_model_folder(tmp_path: Path) -> None:
    assert "the first pull makes it" in model_folder(tmp_path / "none").finding
    (tmp_path / "file").write_text("")
    assert model_folder(tmp_path / "file").level == "failed"
    (tmp_path / "models" / "demo").mkdir(parents=True)
    assert model_folder(tmp_path / "models").finding.endswith("1 model folder")
    (tmp_path / "models" / "loose.gguf").write_text("")
    check = model_folder(tmp_path / "models")
    assert check.finding.endswith("1 model folder, and 1 thing that cannot be used")
    assert (check.level, "'myllm list' says" in check.advice) == ("warning", True)


def test_a_full_disk_is_a_warning(tmp_path: Path) -> None:
    check = disk("model disk", tmp_path / "not" / "yet", 1e9, "MYLLM_MODELS_DIR")
    assert (check.level, "MYLLM_MODELS_DIR" in check.advice) == ("warning", True)


@pytest.mark.parametrize(("has_engine", "level"), [(True, "ok"), (False, "failed")])
def test_a_cache_that_cannot_be_written_fails_only_without_an_engine(
    has_engine: bool, level: str
) -> None:
    # Not even root can write there.
    assert cache_disk(Path("/proc/1/myllm"), has_engine).level == level


def test_status(
    make_settings: MakeSettings, path_with: Callable[..., Path], tmp_path: Path
) -> None:
    path_with()
    none = CliRunner().invoke(engine_app, ["status", "--json"], obj=_Globals(make_settings()))
    assert (none.exit_code, json.loads(none.output)) == (1, {"found": False})
    server = write_server(tmp_path / "llama-server")
    obj = _Globals(make_settings(llama_server=server))
    found = json.loads(CliRunner().invoke(engine_app, ["status", "--json"], obj=obj).output)
    assert found["origin"] == "setting"
    assert found["devices"][0]["name"] == "CUDA0"
    text = CliRunner().invoke(engine_app, ["status"], obj=obj).output
    assert "CUDA0: A card (with brackets), 23901 of 24268 MiB free" in text


def test_an_engine_is_compiled_and_checked_at_first_need(
    engine: Engine,
    make_settings: MakeSettings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = make_settings(llama_source=write_working_tree(tmp_path / "tree", engine))
    compiled = ensure_engine_with_progress(settings)
    said = capsys.readouterr().err
    assert "compiling one" in said
    assert "Compiling llama.cpp: 100%" in said
    assert "Checking the engine on this CPU: 9 steps" in said
    assert ensure_engine_with_progress(settings) == compiled
    assert capsys.readouterr().err == ""


def test_the_check_command_reports_each_quantization(
    engine: Engine, make_settings: MakeSettings, tmp_path: Path
) -> None:
    good = _Globals(make_settings(llama_server=engine.server))
    text = CliRunner().invoke(engine_app, ["check"], obj=good)
    assert text.exit_code == 0
    assert "  IQ4_XS  ok\n" in text.output
    status = json.loads(CliRunner().invoke(engine_app, ["status", "--json"], obj=good).output)
    assert status["check"]["passed"] is True
    assert "answers correctly in Q4_0" in _check(good.settings(), "engine").finding

    broken = write_working_tree(tmp_path / "tree", engine, works_if="false")
    bad = _Globals(make_settings(llama_source=broken))
    build_engine(bad.settings(), BuildOptions(backend="cpu"))
    failed = CliRunner().invoke(engine_app, ["check", "--json"], obj=bad)
    assert failed.exit_code == 1
    assert "SIGILL" in json.loads(failed.stdout)["faults"]["F16"]
    verdict = _check(bad.settings(), "engine")
    assert verdict.level == "failed"
    assert "SIGILL" in verdict.finding


def test_without_a_terminal_progress_is_a_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress() as listener:
        for done in range(223):
            listener(Progress("compile", done + 1, 223, f"step {done}"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Compiling llama.cpp: 223 steps"
    assert lines[1:] == [f"Compiling llama.cpp: {percent}%" for percent in range(10, 101, 10)]
