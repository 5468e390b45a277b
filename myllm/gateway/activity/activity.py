"""Everything that shows what a server does, for the routes that show it."""

from __future__ import annotations

from dataclasses import dataclass

from myllm.gateway.activity.feed import EventFeed
from myllm.gateway.activity.history import History
from myllm.gateway.gateway import Gateway
from myllm.gateway.observers.recent_requests import RecentRequests
from myllm.gateway.pull_progress import Pulls
from myllm.launcher.devices import GpuReadings


@dataclass(frozen=True)
class Activity:
    """The last requests, the pulls under way, the feed of changes, and the last hour."""

    requests: RecentRequests
    pulls: Pulls
    feed: EventFeed
    history: History

    @classmethod
    def of(cls, gateway: Gateway, requests: RecentRequests, gpus: GpuReadings) -> Activity:
        """The activity of `gateway`, whose observers tell of it from now on."""
        pulls = Pulls(gateway.registry)
        feed = EventFeed(gateway, pulls)
        history = History(gateway, gpus)
        for observer in (feed, history):
            gateway.observers.attach(observer)
        return cls(requests, pulls, feed, history)

    def start(self) -> None:
        """Begin to take samples."""
        self.history.start()

    def close(self) -> None:
        """End the streams and the sampling: the server stops."""
        self.feed.close()
        self.history.close()
