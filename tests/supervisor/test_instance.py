"""One process life, with engines that fail in one way each."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import structlog

from myllm.errors import EngineError
from myllm.gateway.observers.event_log import EventLog
from myllm.launcher.base import LaunchSpec
from myllm.launcher.local.launcher import LocalLauncher
from myllm.launcher.local.runtime_dir import RuntimeDir
from myllm.models.registry import Registry
from myllm.supervisor.exit_cause import Death
from myllm.supervisor.instance import Hooks, Instance
from myllm.supervisor.spec import InstanceKey, InstanceSpec

ROOT = Path(__file__).parent.parent.parent
Make = Callable[..., Instance]


@pytest.fixture
def runtime(home: Path) -> Iterator[RuntimeDir]:
    directory = RuntimeDir(home)
    yield directory
    directory.remove()


@pytest.fixture
def make(runtime: RuntimeDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes an instance that runs a fake, or another command."""
    monkeypatch.chdir(ROOT)
    launcher = LocalLauncher(runtime, tmp_path / "logs")
    model = Registry(tmp_path / "models").get("demo")
    spec = InstanceSpec(InstanceKey("demo", "generate"), model, 512, 1, 128)

    def make(
        fake: str,
        command: tuple[str, ...] | None = None,
        load_timeout: float = 20,
        on_exit: Callable[[Instance], None] = lambda instance: None,
    ) -> Instance:
        argv = command or (sys.executable, "-m", "tests.fakes", fake)
        return Instance(
            1,
            spec,
            LaunchSpec("demo", argv),
            launcher,
            Hooks(lambda instance: asyncio.sleep(0), lambda instance: None, on_exit),
            load_timeout_s=load_timeout,
            stop_grace_s=0.3,
        )

    return make


async def until(instance: Instance, state: str) -> None:
    async with asyncio.timeout(20):
        while instance.state != state:
            await asyncio.sleep(0.01)


async def test_an_engine_that_exits_at_once_tells_its_own_cause(make: Make) -> None:
    instance = make("exits_at_once")
    await instance.run()
    assert instance.state == "failed"
    assert instance.error is not None
    assert "exited with code 1 while loading: the model is made of cheese" in instance.error.detail


async def test_an_engine_that_says_nothing(make: Make) -> None:
    instance = make("says_nothing")
    await instance.run()
    assert instance.error is not None
    assert "exited with code 3 while loading; it said nothing" in instance.error.detail
    assert instance.death == Death("exit", loading=True, number=3)
    assert not instance.crashed


async def test_an_engine_that_is_never_ready_is_given_up_and_reaped(make: Make) -> None:
    instance = make("never_ready", load_timeout=0.5)
    await instance.run()
    assert instance.state == "failed"
    assert instance.error is not None
    assert "not ready after 0.5 s (MYLLM_LOAD_TIMEOUT)" in instance.error.detail
    assert instance.death is None
    assert instance.pid is not None
    assert not psutil.pid_exists(instance.pid)


async def test_an_engine_that_ignores_term_is_killed_after_its_grace(make: Make) -> None:
    instance = make("ignores_term")
    life = asyncio.create_task(instance.run())
    await until(instance, "ready")
    pid, began = instance.pid, time.monotonic()
    instance.stop()
    await asyncio.wait_for(life, 10)
    assert instance.state == "stopped"
    assert instance.death is None
    assert time.monotonic() - began >= 0.3
    assert pid is not None
    assert not psutil.pid_exists(pid)


async def test_an_engine_killed_while_serving(make: Make) -> None:
    instance = make("ignores_term")
    life = asyncio.create_task(instance.run())
    await until(instance, "ready")
    assert instance.pid is not None
    os.kill(instance.pid, signal.SIGKILL)
    await asyncio.wait_for(life, 10)
    assert instance.state == "failed"
    assert instance.error is not None
    assert instance.error.retryable
    assert "killed by SIGKILL while serving" in instance.error.detail
    assert instance.death == Death("signal", loading=False, number=signal.SIGKILL)
    assert instance.crashed


async def test_what_it_was_killed_for_is_there_at_once(make: Make) -> None:
    instance = make("ignores_term")
    life = asyncio.create_task(instance.run())
    await until(instance, "ready")
    instance.declare_dead("too large", "takes the whole machine")
    instance.declare_dead("hung", "says nothing, which came later")
    assert instance.death == Death("too large", loading=False)
    await asyncio.wait_for(life, 10)
    assert instance.death == Death("too large", loading=False)
    assert instance.error is not None
    assert "takes the whole machine" in instance.error.detail
    assert instance.crashed


class BrokenLog:
    """A log whose every call raises, as one to a closed pipe would."""

    def __getattr__(self, level: str) -> Callable[..., None]:
        def log(*_: object, **__: object) -> None:
            raise BrokenPipeError

        return log


@pytest.mark.parametrize("fake", ["exits_at_once", "never_ready", "ignores_term"])
async def test_it_ends_and_tells_so_whatever_raises(
    make: Make, fake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("myllm.supervisor.instance._log", BrokenLog())
    exited: list[Instance] = []
    instance = make(fake, on_exit=exited.append)
    life = asyncio.create_task(instance.run())
    await asyncio.sleep(0.2)
    instance.stop()
    await asyncio.wait({life}, timeout=10)
    assert life.done()
    assert exited == [instance]
    assert instance.is_over()
    assert instance.ended.is_set()
    assert instance.pid is not None
    assert not psutil.pid_exists(instance.pid)


async def test_a_connection_that_cannot_be_closed_does_not_keep_the_process(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = make("ignores_term")
    life = asyncio.create_task(instance.run())
    await until(instance, "ready")
    monkeypatch.setattr(instance.client, "close", BrokenLog().close)
    instance.stop()
    await asyncio.wait({life}, timeout=10)
    assert isinstance(life.exception(), BrokenPipeError)
    assert instance.pid is not None
    assert not psutil.pid_exists(instance.pid)


@pytest.mark.parametrize(
    ("fake", "reason"), [("exits_at_once", "failed to start"), ("never_ready", "idle")]
)
async def test_the_log_gives_the_reason_of_its_end(make: Make, fake: str, reason: str) -> None:
    with structlog.testing.capture_logs() as log:
        instance = make(fake, on_exit=EventLog().engine_exited)
        life = asyncio.create_task(instance.run())
        if reason == "idle":
            await asyncio.sleep(0.2)
            instance.stop(reason="idle")
            instance.stop(reason="the server stops")
        await asyncio.wait_for(life, 10)
    assert [each["reason"] for each in log if each["event"] == "engine stopped"] == [reason]


async def test_stopping_while_it_loads(make: Make) -> None:
    instance = make("never_ready")
    life = asyncio.create_task(instance.run())
    await asyncio.sleep(0.2)
    instance.stop()
    await asyncio.wait_for(life, 10)
    assert instance.state == "stopped"
    assert instance.error is None


async def test_an_engine_that_is_missing_or_not_executable(make: Make, tmp_path: Path) -> None:
    plain = tmp_path / "llama-server"
    plain.write_text("#!/bin/sh\n")
    plain.chmod(stat.S_IRUSR)
    for command, words in (
        ((str(tmp_path / "nowhere"),), "No such file"),
        ((str(plain),), "Permission denied"),
    ):
        instance = make("", command=command)
        await instance.run()
        assert instance.state == "failed"
        assert isinstance(instance.error, EngineError)
        assert words in instance.error.detail


async def test_a_log_that_cannot_be_written_is_named(make: Make, tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where a folder belongs")
    instance = make("never_ready")
    await instance.run()
    assert instance.state == "failed"
    assert instance.error is not None
    assert str(tmp_path / "logs") in instance.error.detail


async def test_a_removed_runtime_directory_is_made_again(make: Make, runtime: RuntimeDir) -> None:
    shutil.rmtree(runtime.path)
    instance = make("ignores_term")
    life = asyncio.create_task(instance.run())
    await until(instance, "ready")
    assert stat.S_IMODE(runtime.path.stat().st_mode) == 0o700
    assert sorted(path.name for path in runtime.path.iterdir()) == ["1.pid", "owner"]
    instance.stop()
    await asyncio.wait_for(life, 10)


async def test_a_runtime_directory_of_somebody_else_is_not_used(
    make: Make, runtime: RuntimeDir
) -> None:
    runtime.path.chmod(0o777)
    instance = make("never_ready")
    await instance.run()
    assert instance.error is not None
    assert str(runtime.path) in instance.error.detail


async def test_an_engine_that_cannot_be_noted_is_ended(
    make: Make, runtime: RuntimeDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = []

    def note(socket: Path, pid: int) -> None:
        noted.append(pid)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runtime, "note_engine", note)
    instance = make("ignores_term")
    await instance.run()
    assert instance.error is not None
    assert "No space left on device" in instance.error.detail
    [pid] = noted
    assert not psutil.pid_exists(pid)


async def test_an_unforeseen_error_is_a_failure_too(
    make: Make, runtime: RuntimeDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "new_socket", lambda: None)
    instance = make("never_ready")
    await instance.run()
    assert instance.state == "failed"
    assert instance.error is not None
    assert "Internal error" in instance.error.detail


@pytest.mark.parametrize("temporary", ["", "x" * 80])
def test_the_runtime_directory_is_private_and_its_paths_are_short(
    home: Path, temporary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(home / temporary))
    for parent in (home, home / ("x" * 80)):
        runtime = RuntimeDir(parent)
        try:
            assert stat.S_IMODE(runtime.path.stat().st_mode) == 0o700
            assert len(os.fsencode(runtime.new_socket())) < 100
            assert runtime.new_socket() != runtime.new_socket()
        finally:
            runtime.remove()
        assert not runtime.path.exists()
