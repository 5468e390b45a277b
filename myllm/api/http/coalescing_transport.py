"""A transport that sends an answer's head together with the first bytes of its body.

uvloop writes immediately, and uvicorn writes the head separately. One write for both saves a
system call here and a wakeup in the client.
"""

from __future__ import annotations

import asyncio
from typing import Any


class CoalescingTransport(asyncio.Transport):
    """Wraps the transport of a client's connection and can hold back one write."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._holds = False
        self._held = b""
        self._write = transport.write

    def hold(self) -> None:
        """Hold back the next write until the one after it, or until the connection is closed."""
        self._holds = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._held:
            data, self._held = self._held + data, b""
        if self._holds:
            self._holds, self._held = False, bytes(data)
            return
        self._write(data)

    def close(self) -> None:
        self._holds = False
        if self._held and not self.is_closing():
            self.write(b"")
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def write_eof(self) -> None:
        self._transport.write_eof()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)
