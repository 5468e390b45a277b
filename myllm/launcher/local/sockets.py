"""Connections to the Unix socket that an engine listens on."""

from __future__ import annotations

import asyncio
import socket
import time

_GIVE_UP_S, _RETRY_S = 10.0, 0.01


async def connect_unix(path: str) -> socket.socket:
    """Return a non-blocking socket that is connected to `path`.

    Raises OSError, and TimeoutError when the queue of connections to accept stays full.
    """
    opened = socket.socket(socket.AF_UNIX)
    try:
        opened.setblocking(False)
        give_up_at = time.monotonic() + _GIVE_UP_S
        while True:
            try:
                opened.connect(path)
            except BlockingIOError:
                if time.monotonic() > give_up_at:
                    raise TimeoutError(f"not accepted within {_GIVE_UP_S:g} s") from None
                await asyncio.sleep(_RETRY_S)
            else:
                return opened
    except BaseException:
        opened.close()
        raise
