"""Background work that fails continues; each failure is counted, and logged once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from myllm import incidents, loops
from myllm.errors import StoreFailed
from myllm.incidents import counted
from myllm.loops import in_background, keep_running, note_failure, see_all_failures


@pytest.fixture(autouse=True)
def nothing_logged_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "_logged_at", {})


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with capture_logs() as events:
        yield events


def counts(name: str) -> int:
    return counted().get(f"failed: {name}", 0)


class Work:
    """Each call raises the next of `plan`, or succeeds at None; one past its end sets `over`."""

    def __init__(self, *plan: BaseException | None) -> None:
        self.plan = list(plan)
        self.over = asyncio.Event()

    async def step(self) -> None:
        if not self.plan:
            self.over.set()
            return
        if (failure := self.plan.pop(0)) is not None:
            raise failure


async def run(name: str, work: Work) -> None:
    task = asyncio.create_task(keep_running(name, work.step, 0.001))
    await asyncio.wait_for(work.over.wait(), 30)
    task.cancel()
    await asyncio.wait({task}, timeout=10)
    assert task.cancelled()


async def test_a_failure_is_logged_once_and_counted_each_time(logged: list[Any]) -> None:
    await run("a", Work(*(OSError("no files") for _ in range(3)), None, OSError("no files")))
    assert [(each["event"], each["log_level"]) for each in logged] == [
        ("background work failed", "error"),
        ("background work goes on", "info"),
    ]
    assert counts("a") == 4


async def test_an_expected_failure_is_logged_without_a_traceback(logged: list[Any]) -> None:
    await run("b", Work(StoreFailed("the disk is full")))
    assert logged[0]["log_level"] == "warning"
    assert logged[0]["cause"] == "the disk is full"
    assert "exc_info" not in logged[0]


async def test_a_different_failure_is_logged_too(logged: list[Any]) -> None:
    await run("c", Work(OSError(), ValueError(), OSError(), ValueError()))
    assert [each["event"] for each in logged].count("background work failed") == 2


async def test_a_step_whose_own_work_was_cancelled_does_not_end_the_loop() -> None:
    await run("d", Work(asyncio.CancelledError()))
    assert counts("d") == 1


async def test_the_pause_grows_and_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 12:
            raise asyncio.CancelledError

    work = Work(*(OSError() for _ in range(7)), None, None, OSError())
    monkeypatch.setattr(loops.asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await keep_running("e", work.step, 0.5, first_s=3)
    assert pauses == [3, 1, 2, 4, 8, 10, 10, 10, 0.5, 0.5, 1, 0.5]


async def test_a_slow_loop_keeps_its_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loops._longer(600, 600) == 600


async def test_a_failure_that_no_caller_awaits_is_counted(logged: list[Any]) -> None:
    async def fail() -> None:
        raise ValueError("unforeseen")

    task = in_background("f", fail())
    await asyncio.wait({task})
    assert counts("f") == 1
    assert logged[0]["work"] == "f"
    assert isinstance(logged[0]["exc_info"], ValueError)


async def raise_in_a_callback() -> None:
    def fail() -> None:
        raise ValueError

    asyncio.get_running_loop().call_soon(fail)
    await asyncio.sleep(0)


async def raise_in_a_thread() -> None:
    def fail() -> None:
        raise ValueError

    thread = threading.Thread(target=fail)
    thread.start()
    await asyncio.to_thread(thread.join)


async def forget_a_task() -> None:
    async def fail() -> None:
        raise ValueError

    task = asyncio.create_task(fail())
    await asyncio.wait({task})
    del task


@pytest.mark.parametrize(
    ("fails", "name"),
    [(raise_in_a_callback, "callback"), (raise_in_a_thread, "thread"), (forget_a_task, "callback")],
)
async def test_a_failure_outside_of_all_handlers_is_counted(
    monkeypatch: pytest.MonkeyPatch, fails: Callable[[], Any], name: str
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    before = counts(name)
    see_all_failures(asyncio.get_running_loop())
    await fails()
    assert counts(name) == before + 1


def test_the_same_failure_of_other_work_is_logged_too(logged: list[Any]) -> None:
    assert note_failure("g", ValueError())
    assert note_failure("h", ValueError())
    assert not note_failure("g", ValueError())


async def test_failures_are_counted_by_work() -> None:
    before = incidents.failures()
    incidents.count("event loop blocked")
    note_failure("i", ValueError())
    note_failure("i", ValueError())
    assert {name: n for name, n in incidents.failures().items() if n != before.get(name)} == {
        "i": before.get("i", 0) + 2
    }
