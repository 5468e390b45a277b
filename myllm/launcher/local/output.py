"""An engine's output: the last lines in memory, all of it in a rotated file.

It may contain clients' prompts, so only the owner may read the files.
"""

from __future__ import annotations

import os
import re
import sys
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from io import TextIOWrapper
from logging import LogRecord, makeLogRecord
from logging.handlers import RotatingFileHandler
from pathlib import Path

from myllm.loops import note_failure

KEPT_LINES = 200
LOG_BYTES = 5 * 2**20
LOG_BACKUPS = 2
_OWNER_ONLY = 0o600

# "0.00.005.390 E gguf_init_from_reader: failed to read magic"
_ERROR_LINE = re.compile(r"^[\d.]+ E (?P<text>.*)$")
_ABORT_LINE = re.compile(r"GGML_ASSERT\(.*failed|CUDA error|terminate called|what\(\):")
# "srv    load_model: " or "llama_model_load: " before the message itself
_ORIGIN = re.compile(r"^(?:\S+\s+)?[\w.~]+: (?=\S)")


class EngineOutput:
    """Collects the lines of one process life."""

    def __init__(self, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._causes: list[str] = []
        self._file = _LogFile(
            log, maxBytes=LOG_BYTES, backupCount=LOG_BACKUPS, encoding="utf-8", delay=True
        )

    def begin(self, pid: int) -> None:
        """Note in the file when the process started, since an engine's own times count from there;
        what earlier ones have printed is above."""
        moment = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._file.emit(makeLogRecord({"msg": f"==== {moment} engine started, pid {pid} ===="}))

    def add(self, lines: Sequence[str]) -> None:
        """Keep lines, in memory and in the file."""
        if not lines:
            return
        self._lines += lines
        self._file.emit(makeLogRecord({"msg": "\n".join(lines)}))
        for line in lines:
            if len(self._causes) < KEPT_LINES:
                self._note_cause(line)

    def _note_cause(self, line: str) -> None:
        if found := _ERROR_LINE.match(line):
            self._causes.append(_without_origin(found["text"]))
        elif _ABORT_LINE.search(line):
            self._causes.append(line.strip())

    def cause(self) -> str | None:
        """The first error that it printed: later ones are consequences of it."""
        return self._causes[0] if self._causes else None

    def tail(self) -> list[str]:
        """The last lines, oldest first."""
        return list(self._lines)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _LogFile(RotatingFileHandler):
    """Leaves out what cannot be written: the disk is full, or no file descriptor is free."""

    def _open(self) -> TextIOWrapper:
        file = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT, _OWNER_ONLY)
        try:
            os.fchmod(file, _OWNER_ONLY)  # an earlier version made it readable for all users
        finally:
            os.close(file)
        return super()._open()

    def handleError(self, record: LogRecord) -> None:
        if (failure := sys.exception()) is not None:
            note_failure("writing an engine's log", failure)


def _without_origin(text: str) -> str:
    """Drop the name of the C++ function in front of a message."""
    return _ORIGIN.sub("", text, count=1).strip()
