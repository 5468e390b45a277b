"""Detects that the peer has closed a connection that is not being read at the moment.

The event loop can only watch for data, so it misses a close that comes after unread data.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from contextlib import suppress


class Disconnects:
    """Calls back, once, when the peer of a watched socket has closed it."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._watched: dict[int, Callable[[], None]] = {}

    def watch(self, file: int, on_disconnect: Callable[[], None]) -> None:
        """Call `on_disconnect` from the event loop when the peer closes. No effect on a socket that
        is already watched."""
        if file in self._watched:
            return
        if self._epoll is None:
            self._epoll = select.epoll()
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._look)
        self._epoll.register(file, select.EPOLLRDHUP)
        self._watched[file] = on_disconnect

    def forget(self, file: int) -> None:
        """Stop watching a socket. No effect on one that is not watched."""
        if self._watched.pop(file, None) is not None and self._epoll is not None:
            with suppress(OSError):  # closing a file removes it from epoll
                self._epoll.unregister(file)

    def close(self) -> None:
        """Stop watching all sockets."""
        self._watched.clear()
        if self._epoll is not None:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def _look(self) -> None:
        for file, _ in self._epoll.poll(0) if self._epoll is not None else ():
            if on_disconnect := self._watched.get(file):
                self.forget(file)
                on_disconnect()
