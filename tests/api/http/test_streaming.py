"""Clients that do not read their answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, MutableMapping
from typing import Any

import pytest

from myllm.api.http import streaming
from myllm.api.http.request_state import DEPARTURE, Departure
from myllm.api.http.streaming import Stream


async def test_a_client_that_does_not_read_for_too_long_counts_as_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streaming, "CLIENT_STALLS_S", 0.1)
    cleaned_up = []

    async def frames() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"data: {}\n\n"
        finally:
            cleaned_up.append(True)

    sent = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)
        if len(sent) > 5:
            await asyncio.Event().wait()  # as a socket whose other end reads no more

    async def receive() -> MutableMapping[str, Any]:
        raise AssertionError

    stream = Stream(frames, lambda error: b"")
    await asyncio.wait_for(
        stream({"type": "http", "state": {DEPARTURE: Departure()}}, receive, send), 10
    )
    assert cleaned_up == [True]
    assert len(sent) == 6
