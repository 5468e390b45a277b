"""Starts engines as child processes of this one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from myllm.errors import EngineError
from myllm.launcher.base import LaunchSpec, StateListener
from myllm.launcher.devices import DeviceMemory
from myllm.launcher.local.child import bounded
from myllm.launcher.local.devices import GpuReader, read_devices
from myllm.launcher.local.environment import engine_environment
from myllm.launcher.local.log_files import LogFiles
from myllm.launcher.local.output import EngineOutput
from myllm.launcher.local.pipes import MAX_READ, LazyPipe
from myllm.launcher.local.priorities import give_way
from myllm.launcher.local.process import LocalProcess
from myllm.launcher.local.runtime_dir import RuntimeDir


class LocalLauncher:
    """Starts engines on this machine, with their sockets in `runtime` and logs in `log_dir`."""

    def __init__(self, runtime: RuntimeDir, log_dir: Path, gpus: GpuReader | None = None) -> None:
        self._runtime = runtime
        self._log_dir = log_dir
        self._gpus = gpus

    def devices(self) -> dict[str, DeviceMemory]:
        return read_devices(self._gpus)

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
        output.begin(process.pid)
        child = LocalProcess(process, socket, output, errors, self._runtime, self._gpus)
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

    def logs(self, names: Sequence[str], lines: int) -> LogFiles:
        return LogFiles(self._log_dir, names, lines)

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
                limit=MAX_READ,
                env=engine_environment(),
                start_new_session=True,
                preexec_fn=bounded(os.getpid()),
            )
        except OSError as failure:
            raise EngineError(
                f"cannot run {spec.argv[0]}: {failure.strerror}; see 'myllm engine status'"
            ) from failure
