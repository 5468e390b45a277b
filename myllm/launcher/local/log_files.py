"""Reads what engines have printed, from the files that `output.py` writes and rotates."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Final

from myllm.errors import EngineError
from myllm.escaping import in_lines
from myllm.launcher.local.output import LOG_BACKUPS

PIECE_BYTES: Final = 2**16
"""What is read at once; a longer line comes in pieces."""
TAIL_BYTES: Final = 2**21
"""The last lines of a log are looked for in so many bytes."""


class LogFiles:
    """The logs in `folder` of the engines with one of `names`, or one of them with a number.

    The first pieces are the last `lines` lines of each log; the log that was written last comes
    last. Later pieces are what was written since. When the log changes, a line names it. If both
    methods are called at once, by two threads, one waits for the other.
    """

    def __init__(self, folder: Path, names: Sequence[str], lines: int) -> None:
        self._folder = folder
        self._file_name = re.compile(rf"((?:{'|'.join(map(re.escape, names))})(?:\.\d+)?)\.log")
        self._lines: int | None = lines
        self._logs: dict[str, _Log] = {}
        self._read_last: str | None = None
        self._lock = threading.Lock()

    def exist(self) -> bool:
        """Whether such an engine has ever printed something. Raises EngineError."""
        with self._translated():
            return any(self._found())

    def read(self) -> str:
        """The next piece, control characters escaped; empty if there is nothing new.

        Raises EngineError.
        """
        with self._lock, self._translated():
            self._add_new_ones()
            for name, log in self._logs.items():
                if piece := log.read():
                    return self._heading(name) + in_lines(piece.decode(errors="replace"))
        return ""

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            for log in self._logs.values():
                log.close()

    def _add_new_ones(self) -> None:
        found = {name: path for name, path in self._found() if name not in self._logs}
        for name in sorted(found, key=lambda name: _modified(found[name])):
            self._logs[name] = _Log(found[name], self._lines)
        self._lines = None  # a log that appears later is read from its beginning

    def _found(self) -> Iterator[tuple[str, Path]]:
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:  # no engine has run yet
            return
        for name in names:
            if named := self._file_name.fullmatch(name):
                yield named[1], self._folder / name

    def _heading(self, name: str) -> str:
        """As `tail -f` writes it; none while there is only one log."""
        before, self._read_last = self._read_last, name
        if name == before or (before is None and len(self._logs) == 1):
            return ""
        return f"{'' if before is None else chr(10)}==> {name} <==\n"

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as failure:
            where = failure.filename or self._folder
            raise EngineError(f"{where} cannot be read: {failure.strerror}") from failure


class _Log:
    """One log with its rotated files, from its last `lines` lines on, or from its beginning.

    Its file stays open, so that one that is rotated meanwhile is read to its end.
    """

    def __init__(self, path: Path, lines: int | None) -> None:
        self._path = path
        self._lines = lines
        self._file: FileIO | None = None
        self._rest = b""

    def read(self) -> bytes:
        """The next whole lines; empty if there are none yet."""
        with suppress(FileNotFoundError):  # it is being rotated; the next read finds it
            if self._file is None:
                self._file = self._opened()
            while self._file is not None:
                newer = self._newer(self._file)  # first, since a rotated file grows no more
                if block := self._file.read(PIECE_BYTES):
                    if whole := self._whole_lines(block):
                        return whole
                elif newer is not None:
                    self._file.close()
                    self._file = FileIO(newer)
                else:
                    break
        return b""

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _opened(self) -> FileIO | None:
        paths = list(self._files().values())
        if self._lines is not None:
            return _opened_at(reversed(paths), self._lines)
        return FileIO(paths[0]) if paths else None

    def _whole_lines(self, block: bytes) -> bytes:
        """What is complete of the rest and `block`; keeps the new rest."""
        block = self._rest + block
        is_long = len(block) >= PIECE_BYTES
        end = block.rfind(b"\n") + 1 or (len(block) if is_long else 0)
        self._rest = block[end:]
        return block[:end]

    def _newer(self, file: FileIO) -> Path | None:
        """The file that follows `file`; None if that is the newest. One that was emptied is read
        from its beginning."""
        mine, newest = os.fstat(file.fileno()), self._path.stat()
        if newest.st_ino == mine.st_ino:
            if file.tell() > newest.st_size:
                file.seek(0)
            return None
        files = self._files()
        inodes = list(files)
        place = inodes.index(mine.st_ino) if mine.st_ino in files else -1
        return files[inodes[place + 1]]  # the oldest if ours was deleted

    def _files(self) -> dict[int, Path]:
        """All files by inode, the oldest first."""
        rotated = (Path(f"{self._path}.{number}") for number in range(LOG_BACKUPS, 0, -1))
        found = {}
        for path in (*rotated, self._path):
            with suppress(FileNotFoundError):
                found[path.stat().st_ino] = path
        return found


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _opened_at(newest_first: Iterator[Path], lines: int) -> FileIO | None:
    """Open the file in which the last `lines` lines begin, at that place."""
    file, most = None, TAIL_BYTES
    for path in newest_first:
        if file is not None:
            file.close()
        file = FileIO(path)
        size = file.seek(0, os.SEEK_END)
        offset, counted = _tail(file, lines, most)
        file.seek(offset)
        lines, most = lines - counted, most - (size - offset)
        if offset or lines <= 0 or most <= 0:
            break
    return file


def _tail(file: FileIO, lines: int, most: int) -> tuple[int, int]:
    """Where the last `lines` lines of a file begin, and how many there are from there on. Only its
    last `most` bytes are looked at."""
    place = size = file.seek(0, os.SEEK_END)
    counted = 0
    while place > 0:
        step = min(PIECE_BYTES, place, most - (size - place))
        place -= step
        file.seek(place)
        block = file.read(step)
        breaks = block.count(b"\n")
        skipped = counted + breaks - lines
        if skipped > 0:
            return place + _after(block, skipped), lines
        counted += breaks
        if size - place >= most:  # which is in mid-line, most likely
            return place + _after(block, 1), counted
    return 0, counted


def _after(block: bytes, breaks: int) -> int:
    """The place behind so many line breaks."""
    place = 0
    for _ in range(breaks):
        place = block.find(b"\n", place) + 1
    return place
