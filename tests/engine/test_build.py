"""Real builds, by cmake and ninja, of a tiny llama.cpp: caching, waiting, resuming, failing."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from myllm.engine import build_errors, fetch
from myllm.engine.build import BuildOptions, build_engine
from myllm.engine.build_options import TARGETS
from myllm.engine.find import find_engine
from myllm.engine.probe import identify
from myllm.engine.progress import Progress
from myllm.engine.source import find_source
from myllm.errors import BuildFailed
from myllm.settings import Settings
from tests.engine.conftest import MakeSettings
from tests.engine.llama import write_tree

CPU = BuildOptions(backend="cpu")


@pytest.mark.full
def test_a_build_reports_progress_and_is_found_again(tiny: Settings) -> None:
    heard: list[Progress] = []
    engine = build_engine(tiny, CPU, heard.append)
    assert engine.origin == "cache"
    assert (engine.version, engine.build) == ("0.5.0-dev", 12000)
    assert engine.backends == ("CPU",)
    assert all(engine.tool(name).is_file() for name in TARGETS)
    compiled = [step for step in heard if step.phase == "compile"]
    assert (compiled[-1].done, compiled[-1].total) == (6, 6)
    assert not list((tiny.cache_dir / "build").glob("*/"))

    heard.clear()
    assert build_engine(tiny, CPU, heard.append) == engine
    assert not heard
    assert find_engine(tiny) == engine


@pytest.mark.full
def test_a_second_build_waits_for_the_first(tiny: Settings) -> None:
    """The second build says that it waits, then finds the result of the first."""
    first_compiles, second_waits = threading.Event(), threading.Event()
    heard: list[Progress] = []
    engines: list[object] = []

    def hold(step: Progress) -> None:
        if step.phase == "configure":
            first_compiles.set()
            assert second_waits.wait(60)

    def listen(step: Progress) -> None:
        heard.append(step)
        second_waits.set()

    first = threading.Thread(target=lambda: engines.append(build_engine(tiny, CPU, hold)))
    first.start()
    assert first_compiles.wait(60)
    engines.append(build_engine(tiny, CPU, listen))
    first.join(60)
    assert len(engines) == 2
    assert engines[0] == engines[1]
    assert {step.phase for step in heard} == {"wait"}
    assert heard[0].detail == f"another MyLLM (pid {os.getpid()}) is compiling the engine"


@pytest.mark.full
def test_a_waiting_build_shows_the_progress_of_the_other(tiny: Settings) -> None:
    heard: list[Progress] = []
    half_done, is_seen = threading.Event(), threading.Event()

    def hold(step: Progress) -> None:
        if step.phase == "compile" and step.done == 3:
            half_done.set()
            assert is_seen.wait(60)

    def listen(step: Progress) -> None:
        heard.append(step)
        is_seen.set()

    first = threading.Thread(target=lambda: build_engine(tiny, CPU, hold))
    first.start()
    assert half_done.wait(60)
    build_engine(tiny, CPU, listen)
    first.join(60)
    assert (heard[0].phase, heard[0].done, heard[0].total) == ("wait", 3, 6)


@pytest.mark.full
def test_a_failing_compile_shows_the_compilers_words_and_the_log(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    broken = {"llama-quantize.cpp": "int main() { return no_such_thing; }\n"}
    settings = make_settings(llama_source=write_tree(tmp_path / "tree", broken))
    with pytest.raises(BuildFailed) as caught:
        build_engine(settings, CPU)
    detail = caught.value.detail
    assert "no_such_thing" in detail
    assert "[1/6]" not in detail
    log = Path(detail.rpartition("The whole log: ")[2])
    assert "no_such_thing" in log.read_text()
    assert find_engine(settings) is None


@pytest.mark.full
def test_a_server_that_does_not_run_is_not_kept(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    broken = {"llama-server.cpp": "int main() { return 3; }\n"}
    settings = make_settings(llama_source=write_tree(tmp_path / "tree", broken))
    with pytest.raises(BuildFailed, match=r"does not run: .*ended with 3"):
        build_engine(settings, CPU)
    assert find_engine(settings) is None


@pytest.mark.full
def test_a_portable_engine_has_its_libraries(make_settings: MakeSettings, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", {"ggml.cpp": "int ggml() { return 0; }\n"})
    with (tree / "CMakeLists.txt").open("a") as file:
        file.write(
            "set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)\n"
            "add_library(ggml ggml.cpp)\n"
            "set_target_properties(ggml PROPERTIES VERSION 1.2 SOVERSION 1)\n"
            "target_link_options(llama-server PRIVATE -Wl,--no-as-needed)\n"
            "target_link_libraries(llama-server PRIVATE ggml)\n"
        )
    settings = make_settings(llama_source=tree)
    engine = build_engine(settings, BuildOptions(backend="cpu", portable=True))
    assert {"libggml.so", "libggml.so.1", "libggml.so.1.2"} <= set(os.listdir(engine.server.parent))
    elsewhere = engine.server.parent.rename(tmp_path / "elsewhere")
    assert not list(settings.cache_dir.glob("build/*/"))
    assert identify(elsewhere / "llama-server").build == 12000


_RUN = (
    "import sys; from pathlib import Path; from myllm.settings import Settings;"
    "from myllm.engine.build import BuildOptions, build_engine;"
    "build_engine(Settings(_env_file=None, cache_dir=Path(sys.argv[1]),"
    " llama_source=Path(sys.argv[2])), BuildOptions(backend='cpu', jobs=1),"
    " lambda step: print(step.phase, step.done, flush=True))"
)


@pytest.fixture
def slow_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A C++ compiler that is slow with one file as long as the file `slow` exists."""
    compiler, slow = tmp_path / "slow-c++", tmp_path / "slow"
    compiler.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *"-c "*llama-fit-params.cpp*) [ -e {slow} ] && sleep 60 ;; esac\n'
        'exec c++ "$@"\n'
    )
    compiler.chmod(0o755)
    slow.touch()
    monkeypatch.setenv("CXX", str(compiler))
    return slow


@pytest.fixture
def interrupted(tiny: Settings, slow_compiler: Path) -> Iterator[Callable[[int], None]]:
    """Run a build in its own process and end it with a signal while it compiles."""
    started: list[subprocess.Popen[str]] = []

    def run(number: int) -> None:
        command = [sys.executable, "-c", _RUN, str(tiny.cache_dir), str(tiny.llama_source)]
        build = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        started.append(build)
        assert build.stdout is not None
        for line in build.stdout:
            if line.startswith("compile 3"):
                break
        # Every step before the slow one is done; the compiler of that one sleeps.
        _wait_until(lambda: any("slow-c++" in name for name in _descendants(build.pid)))
        children = psutil.Process(build.pid).children(recursive=True)
        build.send_signal(number)
        build.wait(20)
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not alive, "a compiler outlived the build"

    yield run
    for build in started:
        build.kill()
        build.wait(10)
        if build.stdout:
            build.stdout.close()


def _descendants(pid: int) -> list[str]:
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            found.append(" ".join(child.cmdline()))
        except psutil.Error:
            continue
    return found


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_build_leaves_no_compiler_and_resumes(
    tiny: Settings, slow_compiler: Path, interrupted: Callable[[int], None], number: int
) -> None:
    interrupted(number)
    objects = {path: path.stat().st_mtime_ns for path in tiny.cache_dir.rglob("build/**/*.o")}
    assert objects
    slow_compiler.unlink()
    heard: list[Progress] = []
    build_engine(tiny, BuildOptions(backend="cpu", jobs=1), heard.append)
    steps = [step for step in heard if step.phase == "compile"]
    assert steps[-1].total <= 10 - len(objects)


@pytest.mark.full
def test_a_build_started_from_another_checkout_starts_again(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    """Both checkouts have the same commit, so both builds have the same key and tree."""
    first, second = write_tree(tmp_path / "first"), tmp_path / "second"
    author = ["-c", "user.name=x", "-c", "user.email=x@localhost"]
    for command in (
        ["-C", first, "init", "-q"],
        ["-C", first, "add", "."],
        ["-C", first, *author, "commit", "-qm", "x"],
        ["clone", "-q", first, second],
    ):
        subprocess.run(["git", *command], check=True, timeout=20)

    def stop(step: Progress) -> None:
        if step.phase == "compile":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(make_settings(llama_source=first), CPU, stop)
    settings = make_settings(llama_source=second)
    assert list(settings.cache_dir.glob("build/*/CMakeCache.txt"))
    assert build_engine(settings, CPU).build == 12000


def test_a_process_that_keeps_the_lock_is_named(
    make_settings: MakeSettings,
    tiny_pin: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny_pin("0" * 64)
    settings = make_settings()
    monkeypatch.setattr(fetch, "_LOCK_TIMEOUT_S", 0.1)
    place = hashlib.sha256(str(find_source(settings).tree).encode()).hexdigest()[:16]
    lock = settings.cache_dir / "locks" / f"source-{place}.lock"
    lock.parent.mkdir(parents=True)
    with FileLock(lock), pytest.raises(BuildFailed, match="Another process") as caught:
        build_engine(settings, CPU)
    assert str(lock) in caught.value.detail


def test_without_a_compiler_it_says_what_to_install(
    tiny: Settings, path_with: Callable[..., Path]
) -> None:
    path_with("cmake", "ninja")
    with pytest.raises(BuildFailed, match=r"no C\+\+ compiler .*apt install g\+\+"):
        build_engine(tiny, CPU)


def test_cuda_without_nvcc_says_what_to_install(
    tiny: Settings, path_with: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path_with("cmake", "ninja", "cc", "c++")
    monkeypatch.setattr("myllm.engine.toolchain._CUDA_HOME", "/nowhere")
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.delenv("CUDA_PATH", raising=False)
    with pytest.raises(BuildFailed, match="no nvcc; install the CUDA toolkit"):
        build_engine(tiny, BuildOptions(backend="cuda"))


def test_without_build_tools_and_without_an_index_it_says_what_to_install(
    tiny: Settings, path_with: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path_with("cc", "c++")
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(empty))
    with pytest.raises(BuildFailed, match=r"pip could not fetch them .*apt install cmake"):
        build_engine(tiny, CPU)


def test_a_cache_that_cannot_be_written_is_named(
    tiny: Settings, make_settings: MakeSettings, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    settings = make_settings(cache_dir=tmp_path / "file", llama_source=tiny.llama_source)
    with pytest.raises(BuildFailed, match=r"/file: File exists; make it a writable folder, or let"):
        build_engine(settings, CPU)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    subprocess.run(mount, check=True, timeout=10)
    yield place
    subprocess.run(["umount", str(place)], check=True, timeout=10)


@pytest.mark.needs_root
def test_too_little_space_is_noticed_before_the_build(
    tiny: Settings, make_settings: MakeSettings, small_disk: Path
) -> None:
    settings = make_settings(cache_dir=small_disk / "cache", llama_source=tiny.llama_source)
    with pytest.raises(BuildFailed, match=r"needs about 500 MB in .*small.* and \d MB are free"):
        build_engine(settings, CPU)


@pytest.mark.needs_root
def test_a_disk_that_fills_during_the_build_is_named(
    tiny: Settings,
    make_settings: MakeSettings,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(build_errors, "SPACE_CPU_MB", 0)
    (small_disk / "ballast").write_bytes(b"\0" * 900_000)
    settings = make_settings(cache_dir=small_disk / "cache", llama_source=tiny.llama_source)
    with pytest.raises(BuildFailed, match=r"(disk is full|No space left).*MYLLM_CACHE_DIR"):
        build_engine(settings, CPU)
