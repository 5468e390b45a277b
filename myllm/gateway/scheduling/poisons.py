"""Requests that are known to kill engines, and the keys that have sent them.

A convicted body is refused by its digest for ten minutes, before it reaches an engine. A body whose
client leaves each time before it can be tried counts as convicted when it was the only suspect
twice. A key that has sent three such bodies within ten minutes gets no engine for ten minutes.
Without keys, many clients may share an address, so only the bodies are refused.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Any

from myllm.errors import KeyPaused, MyLLMError, Poison
from myllm.gateway.scheduling.suspects import DepartedRequest
from myllm.gateway.scheduling.tickets import Ticket

REMEMBERED_S = 600.0
MAX_REMEMBERED = 1_000
POISONS = 3
PAUSE_S = 600.0
_SUSPECTED = 2


class Poisons:
    """The convicted bodies and keys of all models. `now` is a monotonic time in seconds."""

    def __init__(self) -> None:
        # When a digest was convicted; and how often and when last it was the only suspect.
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self._marked: OrderedDict[bytes, tuple[int, float]] = OrderedDict()
        self._sent: OrderedDict[str, deque[float]] = OrderedDict()

    def convict(self, ticket: Ticket, now: float) -> None:
        """Refuse what `ticket` asks from now on: it has killed engines."""
        if (convicted := DepartedRequest.of(ticket, now)) is not None:
            self._keep(convicted.digest, now)
            self._count(convicted.owner, now)

    def suspect(self, alone: Iterable[DepartedRequest], now: float) -> None:
        """Each of `alone` was the only suspect of an engine's death, and could not be tried."""
        for departed in alone:
            times, last = self._marked.pop(departed.digest, (0, now))
            times = times + 1 if now - last < REMEMBERED_S else 1
            if times < _SUSPECTED:
                self._marked[departed.digest] = times, now
                _shorten(self._marked)
            else:
                self._keep(departed.digest, now)
                self._count(departed.owner, now)

    def refusal(self, ticket: Ticket, now: float) -> MyLLMError | None:
        """Why `ticket` gets no engine; None if it may have one."""
        client = ticket.request.client
        if client.key_name is not None and (pause_s := self._pause_s(client.owner, now)):
            return KeyPaused(
                f"{POISONS} requests of this key have each made an engine die, so the key may ask "
                f"again in {pause_s} s",
                pause_s,
            )
        return self.known(ticket, now)

    def known(self, ticket: Ticket, now: float) -> MyLLMError | None:
        """Why no request with the body of `ticket` gets an engine; None if it may have one."""
        while self._known and now - next(iter(self._known.values())) > REMEMBERED_S:
            self._known.popitem(last=False)
        if not self._known or ticket.demand is None or ticket.demand.digest() not in self._known:
            return None
        return Poison(
            f"This request has made the engine of model '{ticket.key}' die before, so it is not "
            "tried again for some minutes"
        )

    def _keep(self, digest: bytes, now: float) -> None:
        self._known.pop(digest, None)
        self._known[digest] = now
        _shorten(self._known)

    def _count(self, owner: str | None, now: float) -> None:
        if owner is None:
            return
        times = self._sent.pop(owner, None) or deque(maxlen=POISONS)
        times.append(now)
        self._sent[owner] = times
        _shorten(self._sent)

    def _pause_s(self, owner: str, now: float) -> int:
        times = self._sent.get(owner)
        if times is None or len(times) < POISONS or times[-1] - times[0] > REMEMBERED_S:
            return 0
        return max(0, math.ceil(times[-1] + PAUSE_S - now))


def _shorten(remembered: OrderedDict[Any, Any]) -> None:
    while len(remembered) > MAX_REMEMBERED:
        remembered.popitem(last=False)
