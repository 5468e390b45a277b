"""Pulls a model for a client that listens: a download in its own thread, reported in steps."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from myllm.errors import EngineError, MyLLMError, PullFailed
from myllm.models.hub import RemoteFile
from myllm.models.pull import pull
from myllm.models.pull_source import PullSource
from myllm.models.registry import Registry

_log = structlog.get_logger(__name__)
_LEFT: Final = "given up: no client waits for it any more"


@dataclass(frozen=True)
class Step:
    """What a pull does; of a file in transfer, how many bytes have arrived."""

    status: str
    file: RemoteFile | None = None
    completed: int = 0


class Pulls:
    """The pulls that clients wait for.

    `under_way` has the last step of each, by the name of its model. `on_end` is called with the
    name, and with the error if the pull failed or its client left.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.under_way: dict[str, Step] = {}
        self.on_end: Callable[[str, MyLLMError | None], None] | None = None

    async def steps(self, wanted: PullSource) -> AsyncGenerator[Step, None]:
        """Pull `wanted` and yield the steps. Raises PullFailed and InvalidModel.

        Leaving the iteration ends the download at its next block; the next pull continues it.
        """
        work = _Pull(self._registry, wanted)
        # A daemon thread: what it has downloaded is kept, so a server that stops need not wait for
        # it.
        threading.Thread(target=work.run, name=f"pull {wanted.name}", daemon=True).start()
        end: MyLLMError | None = PullFailed(_LEFT)
        try:
            while (step := await work.steps.get()) is not None:
                if isinstance(step, MyLLMError):
                    end = step
                    raise step
                self.under_way[wanted.name] = step
                yield step
            end = None
        finally:
            work.left.set()
            self.under_way.pop(wanted.name, None)
            if self.on_end is not None:
                self.on_end(wanted.name, end)


class _Pull:
    """The download. Only `run` and what it calls are called in the thread."""

    def __init__(self, registry: Registry, wanted: PullSource) -> None:
        self._registry = registry
        self._wanted = wanted
        self._loop = asyncio.get_running_loop()
        self._files: Sequence[RemoteFile] = ()
        self.steps: asyncio.Queue[Step | MyLLMError | None] = asyncio.Queue()
        self.left = threading.Event()

    def run(self) -> None:
        end: MyLLMError | None = None
        try:
            pull(
                self._registry,
                self._wanted,
                on_files=self._begin,
                on_progress=self._progress,
                say=lambda sentence: self._tell(Step(sentence)),
                check=self._check,
            )
        except MyLLMError as failure:
            end = failure
        except Exception:  # noqa: BLE001 - or the client would wait forever
            _log.exception("pull failed", model=self._wanted.name)
            end = EngineError("Internal error; the server's log has the details")
        if not self.left.is_set():
            self._loop.call_soon_threadsafe(self.steps.put_nowait, end)

    def _begin(self, files: Sequence[RemoteFile]) -> None:
        self._files = files

    def _progress(self, done: int, total: int) -> None:
        """Files come one after the other."""
        for file in self._files:
            if done <= file.size or file is self._files[-1]:
                self._tell(Step("pulling", file, done))
                return
            done -= file.size

    def _tell(self, step: Step) -> None:
        self._check()
        self._loop.call_soon_threadsafe(self.steps.put_nowait, step)

    def _check(self) -> None:
        if self.left.is_set():
            raise PullFailed(_LEFT)
