"""Background work that continues after a failure, which is counted and logged once.

A caller that does not wait for its work starts it with `keep_running` (again and again) or
`in_background` (once). `see_all_failures` catches the failures outside these: those of callbacks
and threads.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from typing import Any, Final, NoReturn, TypeVar

import structlog

from myllm.errors import MyLLMError
from myllm.incidents import count_failure

_log = structlog.get_logger(__name__)
T = TypeVar("T")
LONGEST_PAUSE_S: Final = 10.0
"""Work that keeps failing is retried at least this often, or as often as when it works."""
_REMIND_S: Final = 600.0
_MAX_CAUSES: Final = 1000

_Cause = tuple[str, str, str, int]
_logged_at: dict[_Cause, float] = {}
# The event loop itself keeps only weak references to its tasks.
_tasks: set[asyncio.Task[Any]] = set()


async def keep_running(
    name: str,
    step: Callable[[], Awaitable[object]],
    every_s: float,
    first_s: float | None = None,
) -> NoReturn:
    """Await `step` every `every_s` seconds until cancelled, whatever it raises.

    The first time is after `first_s` seconds, by default `every_s`. While it fails the pause
    doubles, up to `LONGEST_PAUSE_S`.
    """
    pause_s, was_logged = every_s, False
    await asyncio.sleep(every_s if first_s is None else first_s)
    while True:
        try:
            await step()
        except asyncio.CancelledError as failure:
            if _is_cancelled():
                raise
            # What the step awaited was cancelled, not the step itself.
            was_logged = note_failure(name, failure) or was_logged
            pause_s = _longer(pause_s, every_s)
        except Exception as failure:  # noqa: BLE001 - the loop would end unnoticed
            was_logged = note_failure(name, failure) or was_logged
            pause_s = _longer(pause_s, every_s)
        else:
            if was_logged:
                _log.info("background work goes on", work=name)
            pause_s, was_logged = every_s, False
        await asyncio.sleep(pause_s)


def in_background(
    name: str, work: Coroutine[Any, Any, T], context: Context | None = None
) -> asyncio.Task[T]:
    """A task for `work`. An exception that ends it is noted, even if a caller awaits the task."""
    task = asyncio.create_task(work, name=name, context=context)
    _tasks.add(task)
    task.add_done_callback(_ended)
    return task


def note_failure(name: str, failure: BaseException) -> bool:
    """Count a failure of the work `name`; log it unless the same has been logged in the last ten
    minutes. Returns whether it was logged. Thread-safe.

    Failures are the same when they have the same type and were raised by the same line.
    """
    count_failure(name)
    cause, now = _cause(name, failure), time.monotonic()
    if now - _logged_at.get(cause, -math.inf) < _REMIND_S:
        return False
    if len(_logged_at) >= _MAX_CAUSES:
        _logged_at.clear()
    _logged_at[cause] = now
    if isinstance(failure, MyLLMError):
        _log.warning("background work failed", work=name, cause=failure.detail)
    else:
        _log.error("background work failed", work=name, exc_info=failure)
    return True


def see_all_failures(loop: asyncio.AbstractEventLoop) -> None:
    """Note the exceptions of `loop`'s callbacks, of tasks that are never awaited and of threads."""
    loop.set_exception_handler(_callback_failed)
    threading.excepthook = _thread_failed


def _ended(task: asyncio.Task[Any]) -> None:
    _tasks.discard(task)
    if not task.cancelled() and (failure := task.exception()) is not None:
        note_failure(task.get_name(), failure)


def _callback_failed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    failure = context.get("exception")
    if failure is None:
        loop.default_exception_handler(context)
    else:
        note_failure("callback", failure)


def _thread_failed(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None:
        note_failure("thread", arguments.exc_value)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _longer(pause_s: float, every_s: float) -> float:
    return max(every_s, min(2 * pause_s, LONGEST_PAUSE_S))


def _cause(name: str, failure: BaseException) -> _Cause:
    """The identity of a failure: the work's name, the exception's type, and the line that raised
    it."""
    place = failure.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    file, line = (place.tb_frame.f_code.co_filename, place.tb_lineno) if place else ("", 0)
    return name, type(failure).__name__, file, line
