"""When the feed looks for changes, and when not, with a real gateway."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from myllm.api.http.access import Access
from myllm.api.native.events import _frames
from myllm.engine.engine import Engine
from myllm.errors import Unavailable
from myllm.gateway.activity import feed as feed_module
from myllm.gateway.activity.activity import Activity
from myllm.gateway.activity.feed import EVERY_S, EventFeed
from myllm.gateway.client import Client
from myllm.gateway.gateway import Gateway
from myllm.gateway.observers.recent_requests import RecentRequests
from tests.gateway.generation.cutting import running


def activity_of(gateway: Gateway) -> Activity:
    return Activity.of(gateway, RecentRequests(), dict)


async def until_quiet(feed: EventFeed) -> None:
    for _ in range(1000):
        if feed._looking is None:
            return
        await asyncio.sleep(EVERY_S / 10)
    raise AssertionError("the feed still looks for changes")


async def test_without_a_listener_nothing_is_kept(engine: Engine, home: Path) -> None:
    async with running(engine, home) as gateway:
        feed, before = activity_of(gateway).feed, asyncio.all_tasks()
        last = feed.events.last_id
        await asyncio.wait_for(gateway.load("demo"), 30)
        assert feed.events.last_id == last
        assert not {
            task for task in asyncio.all_tasks() - before if task.get_name() == "event feed"
        }


async def test_it_looks_on_for_a_while_and_then_no_reader_can_resume(
    engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(engine, home) as gateway:
        feed = activity_of(gateway).feed
        async with feed.listening():
            pass
        last = feed.events.last_id
        await asyncio.wait_for(gateway.load("demo"), 30)
        assert feed.events.since(last), "a reader that comes back soon has missed nothing"
        monkeypatch.setattr(feed_module, "_LINGERS_S", 0.0)
        last = feed.events.last_id
        await until_quiet(feed)
        assert feed.events.since(last) is None
        feed.close()


def services_of(gateway: Gateway) -> Any:
    """What the stream of events takes of a server that asks for no keys."""
    everyone = Access().knows
    return SimpleNamespace(gateway=gateway, activity=activity_of(gateway), knows=everyone)


async def test_a_reader_that_is_too_slow_gets_a_snapshot(engine: Engine, home: Path) -> None:
    async with running(engine, home) as gateway:
        services = services_of(gateway)
        frames = _frames(services, Client(), None)
        assert b"event: snapshot" in await anext(frames)
        feed = services.activity.feed
        for number in range(300):
            feed._add("model_found", "m", {"model": str(number)}, None)
        snapshot = await anext(frames)
        assert b"event: snapshot" in snapshot
        assert f"id: {feed.events.last_id}\n".encode() in snapshot
        feed._add("model_found", "m", {"model": "next"}, None)
        while b'"next"' not in (frame := await anext(frames)):
            assert b"event: memory" in frame
        await frames.aclose()
        feed.close()


async def test_a_closed_feed_takes_no_listener(engine: Engine, home: Path) -> None:
    async with running(engine, home) as gateway:
        services = services_of(gateway)
        frames = _frames(services, Client(), None)
        await anext(frames)
        services.activity.feed.close()
        rest = [frame async for frame in frames]
        assert not any(b"snapshot" in frame for frame in rest)
        with pytest.raises(Unavailable, match="stopping"):
            await anext(_frames(services, Client(), None))
