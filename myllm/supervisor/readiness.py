"""How it is found out that an engine has loaded its model.

The engine reports it on its output; as that protocol is undocumented, `/health` is polled as well,
and whichever says so first counts.
"""

from __future__ import annotations

import asyncio

import httpx
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from myllm.supervisor.engine_client import EngineClient

_HEALTH_EVERY_S = 0.1
_HEALTH_TIMEOUT_S = 2.0


class _NotYet(Exception):
    """The engine does not answer, or says that it is still loading."""


async def until_ready(client: EngineClient, reported: asyncio.Event, timeout_s: float) -> bool:
    """Return True when the engine has `reported` that it is ready or `/health` says so, and False
    if neither happens within `timeout_s` seconds."""
    report = asyncio.create_task(reported.wait())
    poll = asyncio.create_task(_poll_health(client, timeout_s))
    try:
        done, _ = await asyncio.wait(
            {report, poll}, timeout=timeout_s, return_when="FIRST_COMPLETED"
        )
    finally:
        report.cancel()
        poll.cancel()
    return bool(done)


async def _poll_health(client: EngineClient, timeout_s: float) -> None:
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type((_NotYet, httpx.TransportError)),
        wait=wait_fixed(_HEALTH_EVERY_S),
        stop=stop_after_delay(timeout_s * 2),  # until_ready gives up before
    ):
        with attempt:
            answer = await client.get("/health", _HEALTH_TIMEOUT_S)
            if answer.status != 200:
                raise _NotYet
