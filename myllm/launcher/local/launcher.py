"""Engines as child processes of this one.

Three things keep a child from outliving us: its stdin is our pipe, and it leaves when that
ends; the kernel kills it when our thread dies (PR_SET_PDEATHSIG); and `stop` signals its
whole process group.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from myllm.errors import EngineError
from myllm.launcher.base import LaunchSpec, StateListener
from myllm.launcher.local import child_protocol
from myllm.launcher.local.child import bounded
from myllm.launcher.local.environment import engine_environment
from myllm.launcher.local.output import EngineOutput
from myllm.launcher.local.pipes import MOST_READ, LazyPipe, read_lines
from myllm.launcher.local.priorities import give_way, let_main_thread_go_first
from myllm.launcher.local.runtime_dir import RuntimeDir
from myllm.loops import in_background

_AFTER_KILL_S = 10.0


class LocalProcess:
    """A child process; its two output pipes are read until they end."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        socket: Path,
        output: EngineOutput,
        errors: LazyPipe,
        runtime: RuntimeDir,
    ) -> None:
        self._process = process
        self._runtime = runtime
        self.socket = socket
        self._output = output
        self._errors = errors
        self._reading: asyncio.Task[None] | None = None
        self._has_spoken = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def read_output(self, on_state: StateListener) -> None:
        """Start to read stdout and stderr."""

        def stdout_lines(lines: Sequence[str]) -> None:
            said = [(line, child_protocol.parse_state(line)) for line in lines]
            for _, state in said:
                if state is not None:
                    self._favour_computing()
                    on_state(state)
            self._output.add([line for line, state in said if line and state is None])

        assert self._process.stdout is not None
        reading = read_lines(self._process.stdout, stdout_lines)
        self._reading = in_background("reading an engine's output", reading)
        self._errors.start()

    def _favour_computing(self) -> None:
        """At its first word: then it begins to load, and its HTTP threads are there."""
        if not self._has_spoken:
            self._has_spoken = True
            let_main_thread_go_first(self.pid)

    async def wait(self) -> int:
        code = await self._process.wait()
        # The pipes may stay open in a grandchild, so what they still hold is waited for briefly.
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
        self._runtime.forget_engine(self.socket)
        return code

    def _signal(self, number: signal.Signals) -> None:
        """Signal the whole group; the child leads it, so its pid names it until it is reaped."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def cause(self) -> str | None:
        return self._output.cause()

    def tail(self) -> list[str]:
        return self._output.tail()


class LocalLauncher:
    """Starts engines on this machine, with their sockets in `runtime` and logs in `log_dir`."""

    def __init__(self, runtime: RuntimeDir, log_dir: Path) -> None:
        self._runtime = runtime
        self._log_dir = log_dir

    async def start(self, spec: LaunchSpec, on_state: StateListener) -> LocalProcess:
        try:
            socket = self._runtime.new_socket()
            output = EngineOutput(self._log_dir / f"{spec.name}.log")
            errors = LazyPipe(output.add)
        except OSError as failure:
            raise EngineError(
                f"the engine's socket, log or pipe cannot be made: {failure}; see "
                "MYLLM_RUNTIME_DIR and MYLLM_STATE_DIR"
            ) from failure
        try:
            process = await self._spawn(spec, socket, errors.writing)
        except BaseException:
            errors.finish()
            output.close()
            raise
        give_way(process.pid)
        child = LocalProcess(process, socket, output, errors, self._runtime)
        try:
            child.read_output(on_state)
            self._runtime.note_engine(socket, child.pid)
        except BaseException as failure:
            await child.stop(0)
            if not isinstance(failure, OSError):
                raise
            raise EngineError(
                f"cannot write to {socket.parent}: {failure.strerror}; see MYLLM_RUNTIME_DIR"
            ) from failure
        return child

    async def _spawn(
        self, spec: LaunchSpec, socket: Path, stderr: int
    ) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                *spec.argv,
                "--host",
                str(socket),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                limit=MOST_READ,
                env=engine_environment(),
                start_new_session=True,
                preexec_fn=bounded(os.getpid()),
            )
        except OSError as failure:
            raise EngineError(
                f"cannot run {spec.argv[0]}: {failure.strerror}; see 'myllm engine status'"
            ) from failure
