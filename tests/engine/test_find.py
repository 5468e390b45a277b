"""Which llama-server is used, and the errors about one that cannot be."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from myllm.engine import hardware
from myllm.engine.build import build_engine
from myllm.engine.build_options import TARGETS
from myllm.engine.cache import Manifest, store
from myllm.engine.engine import Device
from myllm.engine.find import engine_on_path, find_engine
from myllm.engine.hardware import cpu_features
from myllm.engine.probe import list_devices
from myllm.engine.source import find_source
from myllm.errors import EngineError, EngineMissing
from myllm.settings import Settings
from tests.engine.conftest import MakeSettings
from tests.engine.llama import write_server


def _store(settings: Settings, key: str, **changes: object) -> Path:
    """Put a finished engine of the current source into the cache."""
    built = settings.cache_dir / "built" / key
    for target in TARGETS:
        write_server(built / target)
    facts: dict[str, object] = {
        "source": find_source(settings).id,
        "version": "0.5.0-dev",
        "build": 12000,
        "commit": "abcdef123",
        "backends": ["CPU", "RPC"],
        "portable": False,
        "features": sorted(cpu_features()),
        "compiler": "c++",
        "flags": [],
    }
    folder = settings.cache_dir / "engines" / key
    store(folder, built, TARGETS, Manifest(**(facts | changes)))  # type: ignore[arg-type]
    return folder


def test_the_setting_wins_and_its_devices_are_listed(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    server = write_server(tmp_path / "bin" / "llama-server", build=1)
    settings = make_settings(llama_server=server)
    _store(settings, "cpu-1")
    engine = find_engine(settings)
    assert engine is not None
    assert (engine.origin, engine.server, engine.build) == ("setting", server, 1)
    assert engine.backends == ("CPU", "CUDA")
    assert engine.has_gpu
    assert list_devices(engine) == [Device("CUDA0", "A card (with brackets)", 24268, 23901)]


@pytest.mark.parametrize("fault", ["missing", "not executable", "a folder", "another program"])
def test_a_setting_that_cannot_be_used_says_why(
    make_settings: MakeSettings, tmp_path: Path, fault: str
) -> None:
    server = tmp_path / "llama-server"
    words = {
        "missing": "does not exist",
        "not executable": "is not executable; try: chmod +x",
        "a folder": "is a folder",
        "another program": "is not a llama-server",
    }
    if fault == "not executable":
        write_server(server).chmod(0o644)
    elif fault == "a folder":
        server.mkdir()
    elif fault == "another program":
        server.write_text("#!/bin/sh\necho hello\n")
        server.chmod(0o755)
    with pytest.raises(EngineMissing) as caught:
        find_engine(make_settings(llama_server=server))
    assert words[fault] in caught.value.detail
    assert str(server) in caught.value.detail


def test_a_server_that_fails_is_quoted(make_settings: MakeSettings, tmp_path: Path) -> None:
    script = "echo 'libcublas.so.13: cannot open shared object file'; exit 127"
    server = write_server(tmp_path / "llama-server", script=script)
    with pytest.raises(EngineMissing, match=r"ended with 127: libcublas\.so\.13"):
        find_engine(make_settings(llama_server=server))


def test_a_cached_engine_is_found_quickly_and_without_a_process(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings()
    _store(settings, "cpu-1")
    monkeypatch.setattr("subprocess.Popen", None)
    took = []
    for _ in range(10):
        began = time.perf_counter()
        engine = find_engine(settings)
        took.append(time.perf_counter() - began)
    # The best of several, because a busy machine slows some of them down.
    assert min(took) < 0.05
    assert engine is not None
    assert engine.origin == "cache"
    assert engine.tool("llama-quantize").name == "llama-quantize"
    with pytest.raises(EngineMissing, match="llama-nothing is not next to"):
        engine.tool("llama-nothing")


def test_the_engine_built_last_is_used(make_settings: MakeSettings) -> None:
    settings = make_settings()
    older, newer = _store(settings, "cpu-1"), _store(settings, "cpu-portable-2", portable=True)
    os.utime(older / "engine.json", (1, 1))
    found = find_engine(settings)
    assert found is not None
    assert found.server.is_relative_to(newer)


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "pin-of-yesterday"},
        {"features": ["x86_64", "an-instruction-set-of-the-future"]},
    ],
)
def test_an_engine_for_another_source_or_cpu_is_skipped(
    make_settings: MakeSettings, path_with: Callable[..., Path], changes: dict[str, object]
) -> None:
    path_with()
    settings = make_settings()
    _store(settings, "cpu-1", **changes)
    assert find_engine(settings) is None


@pytest.mark.skipif(hardware.nvidia_driver_is_there(), reason="this machine has an NVIDIA GPU")
def test_an_engine_for_cuda_is_skipped_without_a_driver(
    make_settings: MakeSettings, path_with: Callable[..., Path]
) -> None:
    path_with()
    settings = make_settings()
    _store(settings, "cuda-1", backends=["CPU", "CUDA", "RPC"])
    assert find_engine(settings) is None
    _store(settings, "cuda-portable-1", backends=["CPU", "CUDA", "RPC"], portable=True)
    assert find_engine(settings) is not None


def test_an_engine_with_a_broken_manifest_is_skipped(
    make_settings: MakeSettings, path_with: Callable[..., Path]
) -> None:
    path_with()
    settings = make_settings()
    (_store(settings, "cpu-1") / "engine.json").write_text('{"source": ')
    assert find_engine(settings) is None


def test_path_is_used_when_recent_and_probed_once(
    make_settings: MakeSettings, path_with: Callable[..., Path], tmp_path: Path
) -> None:
    folder, calls = path_with(), tmp_path / "calls"
    write_server(folder / "llama-server", script=f"echo called >> {calls}")
    settings = make_settings()
    first, second = find_engine(settings), find_engine(settings)
    assert first == second
    assert first is not None
    assert (first.origin, first.build) == ("path", 12000)
    assert calls.read_text().count("called") == 2  # --version and --list-devices, once each


def test_path_is_skipped_when_too_old(
    make_settings: MakeSettings, path_with: Callable[..., Path]
) -> None:
    write_server(path_with() / "llama-server", build=4567)
    settings = make_settings()
    assert find_engine(settings) is None
    with pytest.raises(EngineError, match="is too old: build 4567, and 11400 is the least"):
        engine_on_path(settings)


def test_a_named_source_is_not_replaced_by_path(
    tiny: Settings, path_with: Callable[..., Path]
) -> None:
    write_server(path_with() / "llama-server")
    assert find_engine(tiny) is None


@pytest.mark.full
def test_a_changed_checkout_is_compiled_again(tiny: Settings) -> None:
    first = build_engine(tiny)
    assert find_engine(tiny) == first
    assert tiny.llama_source is not None
    with (tiny.llama_source / "llama-server.cpp").open("a") as file:
        file.write("// changed\n")
    assert find_engine(tiny) is None
    assert build_engine(tiny).server != first.server
