"""One engine as a child process of this one.

Three things keep a child from outliving its server: its stdin is the server's pipe, and it leaves
when that ends; the kernel kills it when the server's thread dies (PR_SET_PDEATHSIG); and `stop`
signals its whole process group.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

from myllm.launcher.base import EngineUsage, StateListener
from myllm.launcher.local import child_protocol, usage
from myllm.launcher.local.devices import GpuReader
from myllm.launcher.local.output import EngineOutput
from myllm.launcher.local.pipes import LazyPipe, read_lines
from myllm.launcher.local.priorities import let_main_thread_go_first
from myllm.launcher.local.runtime_dir import RuntimeDir
from myllm.launcher.local.sockets import connect_unix
from myllm.loops import in_background

_AFTER_KILL_S = 10.0


class LocalProcess:
    """A child process; its two output pipes are read until they end."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        socket_path: Path,
        output: EngineOutput,
        errors: LazyPipe,
        runtime: RuntimeDir,
        gpus: GpuReader | None,
    ) -> None:
        self._process = process
        self._runtime = runtime
        self._gpus = gpus
        self._socket_path = socket_path
        self._output = output
        self._errors = errors
        self._reading: asyncio.Task[None] | None = None
        self._has_reported = False

    @property
    def pid(self) -> int:
        return self._process.pid

    async def connect(self) -> socket.socket:
        return await connect_unix(str(self._socket_path))

    def memory_mb(self) -> dict[str, int]:
        return usage.memory_mb(self.pid, self._gpus)

    def usage(self) -> EngineUsage | None:
        return usage.usage(self.pid)

    def is_working(self) -> bool:
        return self._gpus is not None and self._gpus.is_working(self.pid)

    def core_wait_s(self) -> float:
        return usage.core_wait_s(self.pid)

    def read_output(self, on_state: StateListener) -> None:
        """Start to read stdout and stderr."""

        def stdout_lines(lines: Sequence[str]) -> None:
            parsed = [(line, child_protocol.parse_state(line)) for line in lines]
            for _, state in parsed:
                if state is not None:
                    self._favour_computing()
                    on_state(state)
            self._output.add([line for line, state in parsed if line and state is None])

        assert self._process.stdout is not None
        reading = read_lines(self._process.stdout, stdout_lines)
        self._reading = in_background("reading an engine's output", reading)
        self._errors.start()

    def _favour_computing(self) -> None:
        """At its first report: then it begins to load, and its HTTP threads exist."""
        if not self._has_reported:
            self._has_reported = True
            let_main_thread_go_first(self.pid)

    async def wait(self) -> int:
        code = await self._process.wait()
        # A grandchild may keep the pipes open, so the wait for the last output is short.
        if self._reading is not None:
            await asyncio.wait([self._reading], timeout=1.0)
        self._errors.finish()
        return code

    async def stop(self, grace_s: float) -> int:
        if self._process.returncode is None:
            self._signal(signal.SIGTERM)
            # After SIGTERM llama-server waits for the thread that reads its stdin.
            if self._process.stdin is not None:
                self._process.stdin.close()
            try:
                await asyncio.wait_for(self._process.wait(), grace_s)
            except TimeoutError:
                self._signal(signal.SIGKILL)
                await asyncio.wait_for(self._process.wait(), _AFTER_KILL_S)
        code = await self.wait()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        self._output.close()
        self._runtime.forget_engine(self._socket_path)
        return code

    def _signal(self, number: signal.Signals) -> None:
        """Signal the whole process group; the child leads it, so its pid names it until reaped."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def cause(self) -> str | None:
        return self._output.cause()

    def tail(self) -> list[str]:
        return self._output.tail()
