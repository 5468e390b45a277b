"""HTTP on a client's connection: uvicorn's, but an answer's head leaves with its first bytes.

uvloop writes at once what it is given, and uvicorn gives it the head alone. Together they cost one
system call less here and one awakening less in whoever reads.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HOLD_HEAD = "hold_head"
"""In a request's state: call it before the head is sent, and it waits for what is sent next."""
BEGUN = "begun"
"""In a request's state once a head was sent: it is too late for another answer."""


class JoiningTransport(asyncio.Transport):
    """The transport that a client's connection has, with a place for what is to wait."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._holds = False
        self._held = b""
        self._write = transport.write

    def hold(self) -> None:
        """Keep back what is written next until more is written, or the connection is closed."""
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

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)


class ClientProtocol(HttpToolsProtocol):
    """What uvicorn is to speak on every connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._joining = JoiningTransport(cast(asyncio.Transport, transport))  # uvloop's is none
        super().connection_made(self._joining)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"][HOLD_HEAD] = self._joining.hold
