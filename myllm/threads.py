"""Work that goes to a thread only if it takes long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread_if(is_long: bool, work: Callable[P, T], *args: P.args, **more: P.kwargs) -> T:
    """Return what `work` returns. A thread does it if it is long, so that the event loop goes on;
    a thread for short work would take longer than the work."""
    if is_long:
        return await asyncio.to_thread(work, *args, **more)
    return work(*args, **more)
