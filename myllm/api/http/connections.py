"""How many clients may be connected, in total and from one address, and which have to leave.

A connection is *silent* until the head of its first request is complete, *idle* between two
requests, and *busy* otherwise. When no place is free, a silent or idle connection is closed for
the new one. If all are busy, a few spare places are left, where only `/health` is answered and
other requests get 503. A client that gets no spare place either is refused before its request is
read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from typing import Literal, Protocol

import structlog

from myllm.api.http.hosts import Network, unmapped
from myllm.descriptors import for_clients
from myllm.loops import note_failure
from myllm.settings import Settings

_log = structlog.get_logger(__name__)
# One address gets at most this share of all connections, whatever the settings say.
_SHARE = 0.75
_SPARE = 16
# Connections are checked in parts, one part every tenth of a second: closing thousands at once
# would block the event loop.
_PARTS = 10
# A client that connected or was answered just now is about to send a request; such connections are
# the last to be closed for others.
_SOON_S, _AGAIN_S = 0.25, 1.0
# A guess: when other clients leave is not known.
RETRY_AFTER_S = 5

Place = Literal["usual", "spare", "none"]


class Connection(Protocol):
    """One client's connection."""

    since: float
    """When it became silent or idle, in the event loop's time."""

    def is_sending(self) -> bool:
        """Whether the client has not taken all of its last answer yet."""
        ...

    def make_room(self) -> None:
        """Close it."""
        ...

    def look(self, now: float) -> None:
        """Close it if the client takes too long."""
        ...


Waiting = dict[Connection, None]
"""Connections that may be closed for others, the longest waiting first."""


@dataclass(slots=True)
class Group:
    """The connections of one address, or those in spare places."""

    count: int = 0
    silent: Waiting = field(default_factory=dict)
    idle: Waiting = field(default_factory=dict)

    def shrink(self, now: float) -> bool:
        """Close the most dispensable connection; return False if all are busy."""
        chosen: Connection | None = None
        silent = next(iter(self.silent), None)
        idle = next((each for each in self.idle if not each.is_sending()), None)
        if silent is not None and now - silent.since > _SOON_S:
            chosen = silent
        elif idle is not None and now - idle.since > _AGAIN_S:
            chosen = idle
        chosen = chosen or silent or idle
        if chosen is None:
            return False
        self.silent.pop(chosen, None)
        self.idle.pop(chosen, None)
        chosen.make_room()
        return True


class Connections:
    """The connections of one server, whose process may have `descriptors` open files."""

    def __init__(self, settings: Settings, descriptors: int) -> None:
        self.head_s = settings.header_timeout
        self.body_s = settings.body_timeout
        self.idle_s = settings.idle_timeout
        # The kernel hands out the lowest free descriptor, so a higher one than this shows that
        # the remaining ones belong to engines and the store, however many clients there are.
        self._highest = for_clients(descriptors)
        self._most = min(settings.max_connections, self._highest)
        share = max(int(self._most * _SHARE), 1)
        self._most_of_one = min(settings.max_connections_per_address, share)
        self._count = self._refused = 0
        self._parts: list[set[Connection]] = [set() for _ in range(_PARTS)]
        self._looked_at = 0
        self._of: defaultdict[str, Group] = defaultdict(Group)
        self._spare = Group()
        self._is_proxy = lru_cache(4096)(lambda address: _is_in(address, settings.trusted_proxies))

    def join(
        self, connection: Connection, address: str, descriptor: int, now: float
    ) -> tuple[Place, Group]:
        """Return the kind of place that a new connection gets, and the group it now belongs to."""
        address = unmapped(address)
        group, place = self._of[address], self._place(address, descriptor, now)
        if place == "spare":
            group = self._spare
        if place == "none":
            self._refused += 1
        else:
            self._count += 1
            self._parts[descriptor % _PARTS].add(connection)
            group.count += 1
            group.silent[connection] = None
        self._forget(address)
        return place, group

    def leave(self, connection: Connection, address: str, descriptor: int, group: Group) -> None:
        """Remove a connection that has been closed."""
        self._count -= 1
        self._parts[descriptor % _PARTS].discard(connection)
        group.count -= 1
        group.silent.pop(connection, None)
        group.idle.pop(connection, None)
        self._forget(unmapped(address))

    def sweep(self, now: float) -> None:
        """Close the connections of clients that take too long.

        Checks a tenth of all connections; called ten times a second.
        """
        self._looked_at = (self._looked_at + 1) % _PARTS
        for connection in list(self._parts[self._looked_at]):
            try:
                connection.look(now)
            except Exception as failure:  # noqa: BLE001 - the other connections must be checked
                note_failure("look at a connection", failure)
        if self._refused and self._looked_at == 0:
            _log.warning("connections refused", refused=self._refused, connections=self._count)
            self._refused = 0

    def _place(self, address: str, descriptor: int, now: float) -> Place:
        group = self._of[address]
        if self._count >= self._most or descriptor >= self._highest:
            # The address with the most connections can best do without one.
            groups = [each for each in self._of.values() if each.silent or each.idle]
            has_room = bool(groups) and max(groups, key=lambda each: each.count).shrink(now)
        elif group.count >= self._most_of_one and not self._is_proxy(address):
            has_room = group.shrink(now)
        else:
            has_room = True
        if has_room:
            return "usual"
        return "spare" if self._spare.count < _SPARE or self._spare.shrink(now) else "none"

    def _forget(self, address: str) -> None:
        if not self._of[address].count:
            del self._of[address]


def _is_in(address: str, networks: Iterable[Network]) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return True  # a Unix socket: its clients cannot be distinguished by address
    return any(parsed in network for network in networks)
