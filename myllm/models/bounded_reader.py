"""Reading the header of a GGUF file without trusting the lengths in it."""

from __future__ import annotations

from pathlib import Path
from struct import Struct
from typing import BinaryIO, Final

from myllm.errors import InvalidModel
from myllm.models.read_errors import PULL_AGAIN

WINDOW: Final = 1 << 20
U32: Final = Struct("<I")
U64: Final = Struct("<Q")
_MAX_HEADER: Final = 1 << 27
"""Bytes, ten times what the largest vocabularies take; reading so many takes a second or two."""


class BoundedReader:
    """The header of a GGUF file, read through a window.

    Nothing is read beyond the end of the file or of the longest header that MyLLM accepts. Every
    method raises InvalidModel when the file ends too early or claims an absurd length.
    """

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path = path
        self.size = size
        self._file = file
        self._window = b""
        self._at = 0
        self._window_start = 0

    @property
    def position(self) -> int:
        return self._window_start + self._at

    def corrupt(self, what: str) -> InvalidModel:
        return InvalidModel(f"{self.path} is corrupt: {what}; {PULL_AGAIN}")

    def take(self, count: int, what: str) -> bytes:
        """Read the next `count` bytes."""
        end = self._at + count
        if end > len(self._window):
            self._refill(count, what)
            end = count
        data = self._window[self._at : end]
        self._at = end
        return data

    def number(self, struct: Struct, what: str) -> int:
        value: int = struct.unpack(self.take(struct.size, what))[0]
        return value

    def string(self, what: str, limit: int) -> str:
        length = self.number(U64, what)
        if length > limit:
            raise self.corrupt(f"{what} claims to be {length} bytes long")
        return self.take(length, what).decode("utf-8", "replace")

    def skip(self, count: int, what: str) -> None:
        """Skip `count` bytes without reading them."""
        self._check(count, what)
        if self._at + count <= len(self._window):
            self._at += count
            return
        self._window_start += self._at + count
        self._window, self._at = b"", 0
        self._file.seek(self._window_start)

    def skip_strings(self, count: int, what: str) -> None:
        """Skip `count` strings. A vocabulary has 10^5 of them, so this loop is tight."""
        length_at = U64.unpack_from
        while count:
            window, at = self._window, self._at
            last = len(window) - U64.size
            while count and at <= last:
                at += U64.size + length_at(window, at)[0]
                count -= 1
            if at <= len(window):
                self._at = at
            else:
                beyond, self._at = at - len(window), len(window)
                self.skip(beyond, what)
            if count:
                self._refill(U64.size, what)

    def _refill(self, count: int, what: str) -> None:
        """Move the window to the current position and fill it with at least `count` bytes."""
        self._check(count, what)
        self._window_start, rest = self.position, self._window[self._at :]
        wanted = min(max(count, WINDOW), self.size - self._window_start)
        self._window = rest + self._file.read(max(wanted - len(rest), 0))
        self._at = 0
        if len(self._window) < count:
            raise self.corrupt(f"it ends within {what}")

    def _check(self, count: int, what: str) -> None:
        if count > self.size - self.position:
            raise InvalidModel(
                f"{self.path} is truncated or corrupt: it ends within {what}; {PULL_AGAIN}"
            )
        if self.position + count > _MAX_HEADER:
            raise self.corrupt(f"its header is longer than {_MAX_HEADER >> 20} MiB at {what}")
