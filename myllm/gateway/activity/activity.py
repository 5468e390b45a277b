"""Everything that shows what a server does, for the routes that show it."""

from __future__ import annotations

from dataclasses import dataclass

from myllm.gateway.activity.feed import EventFeed
from myllm.gateway.gateway import Gateway
from myllm.gateway.observers.recent_requests import RecentRequests
from myllm.gateway.pull_progress import Pulls


@dataclass(frozen=True)
class Activity:
    """The last requests, the pulls under way, and the feed of changes."""

    requests: RecentRequests
    pulls: Pulls
    feed: EventFeed

    @classmethod
    def of(cls, gateway: Gateway, requests: RecentRequests) -> Activity:
        """The activity of `gateway`; its observers tell the feed from now on."""
        pulls = Pulls(gateway.registry)
        feed = EventFeed(gateway, pulls)
        gateway.observers.attach(feed)
        return cls(requests, pulls, feed)

    def close(self) -> None:
        """End the streams that show it: the server stops."""
        self.feed.close()
