"""What MyLLM changes about llama.cpp's build, in a real build of a small tree."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from myllm.engine import build_options
from myllm.engine.build_options import BuildOptions, with_fewer_instructions
from myllm.engine.engine import Engine
from myllm.engine.ensure import build_proven
from myllm.engine.find import find_engine
from myllm.engine.progress import Progress
from tests.engine.conftest import MakeSettings
from tests.engine.llama import write_tree, write_working_tree

TUNING = Path(build_options.__file__).with_name("tuning.cmake")
_LIBRARIES = """
add_subdirectory(ggml)
add_library(llama-common common/arg.cpp common/json.cpp common/log.cpp)
"""
AMX = frozenset({"x86_64", "avx2", "avx512f", "amx_tile", "amx_int8"})


def _compile_commands(folder: Path, *flags: str) -> dict[str, str]:
    """The command line for each compiled file of a tree shaped like llama.cpp's, by its name."""
    tree = write_tree(folder / "tree")
    for name in ("ggml/amx/mmq.cpp", "ggml/ops.cpp", *(f"common/{x}.cpp" for x in _COMMON)):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(f"int {Path(name).stem}() {{ return 0; }}\n")
    (tree / "ggml/CMakeLists.txt").write_text("add_library(ggml-cpu amx/mmq.cpp ops.cpp)\n")
    with (tree / "CMakeLists.txt").open("a") as file:
        file.write(_LIBRARIES)
    build = folder / "build"
    command = ["cmake", "-S", str(tree), "-B", str(build), "-G", "Ninja"]
    command += [f"-DCMAKE_PROJECT_INCLUDE={TUNING}", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON", *flags]
    subprocess.run(command, check=True, capture_output=True)
    subprocess.run(["ninja", "-C", str(build)], check=True, capture_output=True)
    entries = json.loads((build / "compile_commands.json").read_text())
    return {Path(entry["file"]).name: entry["command"] for entry in entries}


_COMMON = ("arg", "json", "log")


def test_only_the_amx_files_keep_their_dead_stores(tmp_path: Path) -> None:
    commands = _compile_commands(tmp_path)
    assert "-fno-tree-dse -fno-dse" in commands["mmq.cpp"]
    assert not any("-dse" in commands[name] for name in commands if name != "mmq.cpp")
    assert "arg.cpp" in commands


def test_the_pinned_source_is_compiled_in_batches(tmp_path: Path) -> None:
    commands = _compile_commands(tmp_path, "-DMYLLM_UNITY=ON")
    assert "json.cpp" in commands
    assert "arg.cpp" not in commands
    assert "-fno-tree-dse" in commands["mmq.cpp"]
    [batch] = [name for name in commands if name.startswith("unity")]
    assert "-O2" in commands[batch]
    assert "-O2" not in commands["ops.cpp"]


def test_fewer_instruction_sets_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_options, "cpu_features", lambda: AMX)
    without_amx = with_fewer_instructions(BuildOptions())
    assert without_amx is not None
    assert build_options.needed_features(without_amx) == ["avx2", "avx512f", "x86_64"]
    common = with_fewer_instructions(without_amx)
    assert common == BuildOptions(instructions="common")
    assert build_options.needed_features(common) == []
    assert with_fewer_instructions(common) is None
    assert with_fewer_instructions(BuildOptions(portable=True)) is None
    monkeypatch.setattr(build_options, "cpu_features", lambda: AMX - {"amx_tile", "amx_int8"})
    assert with_fewer_instructions(BuildOptions()) == common


def test_an_engine_that_fails_with_all_instruction_sets_is_compiled_with_fewer(
    engine: Engine, make_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiled programs run the real ones. The server dies unless it was compiled for
    llama.cpp's common instruction sets, like an engine that gcc compiled wrongly."""
    monkeypatch.setattr(build_options, "cpu_features", lambda: frozenset({"x86_64", "avx2"}))
    tree = write_working_tree(tmp_path / "tree", engine, works_if="NOT GGML_NATIVE")
    settings = make_settings(llama_source=tree)
    heard: list[Progress] = []
    built = build_proven(settings, BuildOptions(backend="cpu"), heard.append)
    notes = [step.detail for step in heard if step.phase == "note"]
    assert len(notes) == 1
    assert "is not used, because it does not work on this CPU: Q4_0, " in notes[0]
    assert find_engine(settings) == built
    # The broken engine stays in the cache, and another request does not make it preferred.
    assert build_proven(settings, BuildOptions(backend="cpu")) == built
    assert find_engine(settings) == built
