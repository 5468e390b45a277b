"""The checks of `myllm doctor` about compiling and running the engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from myllm.engine.build_errors import SPACE_CPU_MB
from myllm.engine.engine import Engine
from myllm.engine.find import candidate_engines, engine_on_path, find_engine
from myllm.engine.selfcheck_result import Verdict, Verdicts
from myllm.engine.source import find_source
from myllm.engine.toolchain import (
    CMAKE_MINIMUM,
    INSTALL_COMPILER,
    INSTALL_CUDA,
    find_build_tool,
    find_compilers,
    find_nvcc,
    first_lines,
    nvidia_gpus,
    tool_version,
)
from myllm.errors import EngineError
from myllm.settings import Settings

Level = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Check:
    """One finding; `advice` says what to do about it, and is empty if nothing needs doing."""

    name: str
    level: Level
    finding: str
    advice: str = ""


def engine_checks(settings: Settings) -> list[Check]:
    """The engine and everything that compiles it. Missing tools fail only without an engine."""
    engine, verdict = _engine(settings)
    return [
        verdict,
        _source(settings),
        _compiler(needed=engine is None),
        _build_tools(settings.cache_dir),
        _cuda(engine),
    ]


def _engine(settings: Settings) -> tuple[Engine | None, Check]:
    try:
        engine = find_engine(settings)
        unfit = _unfit_engines(settings)
    except EngineError as failure:
        advice = "correct MYLLM_LLAMA_SERVER, or unset it to let MyLLM compile one"
        return None, Check("engine", "failed", failure.detail, advice)
    if engine is not None:
        return engine, _usable(engine, Verdicts(settings).get(engine), unfit)
    advice = "the first 'myllm serve' compiles one, or run: myllm engine build"
    if unfit:
        return None, Check("engine", "failed", "; ".join(unfit), advice)
    try:
        engine_on_path(settings)
        finding = "no llama-server yet"
    except EngineError as failure:
        finding = f"no llama-server yet ({failure.detail})"
    return None, Check("engine", "warning", finding, advice)


def _usable(engine: Engine, verdict: Verdict | None, unfit: list[str]) -> Check:
    what = f"{engine.version} for {', '.join(engine.backends)}: {engine.server}"
    proof = verdict.summary() if verdict else "the next start checks it on this CPU"
    return Check("engine", "ok", "; ".join([f"{what}, {proof}", *unfit]))


def _unfit_engines(settings: Settings) -> list[str]:
    """A sentence for each engine that failed the self-check on this CPU."""
    verdicts = Verdicts(settings)
    found = ((engine, verdicts.get(engine)) for engine in candidate_engines(settings))
    return [
        f"{engine.server} is not used: {verdict.summary()}"
        for engine, verdict in found
        if verdict is not None and not verdict.passed
    ]


def _source(settings: Settings) -> Check:
    try:
        source = find_source(settings)
    except EngineError as failure:
        advice = "let it name a checkout of llama.cpp, or unset it to use the pinned source"
        return Check("source", "failed", failure.detail, advice)
    if source.pin is not None:
        return Check("source", "ok", f"llama.cpp {source.commit}, pinned")
    return Check("source", "ok", f"llama.cpp {source.commit or 'without git'} in {source.tree}")


def _compiler(needed: bool) -> Check:
    compilers = find_compilers()
    if compilers is None:
        level: Level = "failed" if needed else "warning"
        return Check("compiler", level, "no C++ compiler on PATH", INSTALL_COMPILER)
    version = first_lines([str(compilers[1]), "--version"])
    if not version:
        return Check(
            "compiler",
            "failed" if needed else "warning",
            f"{compilers[1]} does not run",
            INSTALL_COMPILER,
        )
    return Check("compiler", "ok", f"{version[0]} ({compilers[1]})")


def _build_tools(cache_dir: Path) -> Check:
    found, missing = [], []
    for name in ("cmake", "ninja"):
        tool = find_build_tool(name, cache_dir)
        version = tool_version(tool) if tool else None
        if version:
            found.append(f"{name} {'.'.join(map(str, version))}")
        else:
            missing.append(name)
    if not missing:
        return Check("cmake", "ok", ", ".join(found))
    least = ".".join(map(str, CMAKE_MINIMUM))
    return Check(
        "cmake",
        "warning",
        f"no {' and no '.join(missing)} (cmake from {least} on)",
        "the build fetches them from the package index, or: apt install cmake ninja-build",
    )


def _cuda(engine: Engine | None) -> Check:
    nvcc, gpus = find_nvcc(), nvidia_gpus()
    release = next(
        (line for line in first_lines([str(nvcc), "--version"]) if "release" in line), ""
    )
    toolkit = f"nvcc {release.partition('release ')[2].partition(',')[0]}".strip() if nvcc else ""
    if not gpus:
        finding = f"no NVIDIA GPU; models run on the CPU{f' ({toolkit} is here)' if nvcc else ''}"
        return Check("cuda", "ok", finding)
    names = ", ".join(gpus)
    if engine is not None and engine.has_gpu:
        return Check("cuda", "ok", f"{names}; the engine uses it")
    if nvcc is None:
        advice = f"{INSTALL_CUDA}, then run: myllm engine build --backend cuda"
        return Check("cuda", "warning", f"{names}, but no nvcc to compile for it", advice)
    if engine is None:
        return Check("cuda", "ok", f"{names}, {toolkit}; the build will use it")
    advice = "run: myllm engine build --backend cuda"
    return Check("cuda", "warning", f"{names}, but the engine computes on the CPU", advice)


def space_for_build_mb() -> int:
    """Free space, in MB, below which a build for the CPU does not start."""
    return SPACE_CPU_MB
