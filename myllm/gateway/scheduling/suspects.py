"""Find the request that kills a model's engines.

    unsuspected ──────> suspected ──────> on trial ──────> convicted
         ^                  │                 │             the engine died again, and this
         │                  │                 │             was all it worked on
         └──────────────────┴─────────────────┘
      another request is convicted,     it gets something new,
      or its client leaves              or ends

When an engine dies, these of its requests are suspected: those that it had given nothing yet, as
what is wrong with a request usually shows at its beginning; those that were also there at an
earlier death for which no request was convicted; and a request that was alone. Each death is a
case. It is closed when one of its suspects is convicted, which clears the others, or when all are
cleared.

Suspects go before all other requests, one at a time: while one is on trial, no other request gets a
slot. A request under which two engines died without giving it anything new is tried as well, even
if another one was convicted of those deaths: a third death would be its last. If the engine dies
while a cleared request is still being answered, the suspect is tried first and alone on the next
engine. A request whose client has left cannot be tried. If it is the only suspect that is left,
that is held against its body (`poisons.py`). The same goes for a request that ends after having
been on trial each time, but never alone.

In doubt no request is convicted, and the third death ends a request with the engine's error. It is
in doubt when another process may have killed the engine, or when many requests have been convicted
in a row and none was given anything in between. Then the engine itself may be broken. If it has
never given anything that is likely, so the death counts against the model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from myllm.gateway.scheduling.tickets import Ticket

# A trial ends after this time: hangs are usually found within it.
TRIAL_S = 120.0
_MAX_CASES = 16
# The most convictions in a row, for a model that has given something to a request, and for others.
_MAX_IN_A_ROW, _MAX_AT_FIRST = 10, 3
# How many engines may die under one request if it got nothing new in between, and if it did.
MAX_DEATHS = 3
_MAX_UNEXPLAINED = 6


@dataclass(frozen=True)
class DepartedRequest:
    """A request that left before its engine had given it anything: the digest of its body, its
    owner if it has a key, and when it left."""

    digest: bytes
    owner: str | None
    left_at: float

    @classmethod
    def of(cls, ticket: Ticket, now: float) -> DepartedRequest | None:
        """What to remember of `ticket`; None if it asks nothing of the engine, as a load."""
        if ticket.demand is None:
            return None
        client = ticket.request.client
        owner = None if client.key_name is None else client.owner
        return cls(ticket.demand.digest(), owner, now)


@dataclass(eq=False)
class _Case:
    """A death of an engine; `present` are the requests that it was answering."""

    suspects: set[Ticket]
    present: Sequence[Ticket]
    departed: list[DepartedRequest] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """What a death means. `convicted` is the request to blame for it, and `hopeless` are those
    whose answers end. Unless a request explains it (`is_explained`), it counts against the model.
    `alone` has the only suspect, if that has left and cannot be tried any more.
    """

    convicted: Ticket | None = None
    hopeless: Sequence[Ticket] = ()
    is_explained: bool = False
    alone: Sequence[DepartedRequest] = ()


class Suspects:
    """The cases of one model. `on_trial` is the request that is being tried. `now` is a monotonic
    time in seconds."""

    def __init__(self) -> None:
        self._cases: deque[_Case] = deque(maxlen=_MAX_CASES)
        self._first: Ticket | None = None
        self.on_trial: Ticket | None = None
        self._trial_ends = 0.0
        self._convicted_in_a_row = 0
        self._has_given = False

    def holds_up(self, now: float) -> bool:
        """Whether no request may get a slot, because one is on trial."""
        return self.on_trial is not None and now < self._trial_ends

    def next(self, waiting: Iterable[Ticket]) -> Ticket | None:
        """The suspect among those that wait that is tried next; None if there is none."""
        return min(
            filter(self._is_suspected, waiting),
            key=lambda each: (each is not self._first, -each.deaths, each.enqueued_at),
            default=None,
        )

    def seated(self, ticket: Ticket, now: float) -> None:
        """`ticket` has a slot; if it is suspected, its trial begins."""
        if self._is_suspected(ticket):
            self.on_trial, self._trial_ends = ticket, now + TRIAL_S

    def died(
        self,
        run: int,
        present: Sequence[Ticket],
        gone: Iterable[DepartedRequest],
        *,
        by_itself: bool,
    ) -> Verdict:
        """The engine `run` died while it worked for the `present` requests, and perhaps still for
        those that are `gone`; `by_itself`: no other process can have killed it."""
        trial, self.on_trial = self.on_trial, None
        departed = list(gone)
        is_alone = trial is not None and list(present) == [trial] and not departed
        most = _MAX_IN_A_ROW if self._has_given else _MAX_AT_FIRST
        if is_alone and by_itself and self._convicted_in_a_row < most:
            assert trial is not None
            self._convicted_in_a_row += 1
            self._solve(trial)
            return Verdict(trial, is_explained=True)
        suspects = {each for each in present if each.answered_by != run or each.unexplained}
        if len(present) == 1:
            suspects = set(present)
        works = self._has_given or not is_alone
        is_explained = by_itself and bool(suspects or departed) and works
        for each in present:
            each.unexplained += by_itself
        hopeless = [each for each in present if _is_hopeless(each, run)]
        for each in hopeless:
            self._forget(each)
        suspects.difference_update(hopeless)
        if suspects:
            self._cases.append(_Case(suspects, tuple(present), departed))
        self._first = trial if trial in suspects else None
        return Verdict(None, hopeless, is_explained, () if suspects else _alone(departed))

    def delivered(self, ticket: Ticket) -> list[DepartedRequest]:
        """An engine has given `ticket` something new. Returns those that left and are now the only
        suspect of a case."""
        self._convicted_in_a_row, self._has_given = 0, True
        return self._clear(ticket, None)

    def left(self, ticket: Ticket, departed: DepartedRequest | None) -> list[DepartedRequest]:
        """`ticket` is over; `departed` is set if its client left before anything came. Returns
        those that left and are now the only suspect of a case."""
        return self._clear(ticket, departed)

    def _is_suspected(self, ticket: Ticket) -> bool:
        if ticket.deaths >= MAX_DEATHS - 1:
            return True  # it gets its last chance alone
        return any(ticket in case.suspects for case in self._cases)

    def _clear(self, ticket: Ticket, departed: DepartedRequest | None) -> list[DepartedRequest]:
        if self.on_trial is ticket:
            self.on_trial = None
        alone: list[DepartedRequest] = []
        for case in list(self._cases):
            if ticket not in case.suspects:
                continue
            case.suspects.discard(ticket)
            if departed is not None:
                case.departed.append(departed)
            if not case.suspects:
                self._cases.remove(case)
                alone += _alone(case.departed)
        return alone

    def _forget(self, ticket: Ticket) -> None:
        for case in list(self._cases):
            case.suspects.discard(ticket)
            if not case.suspects:
                self._cases.remove(case)

    def _solve(self, convicted: Ticket) -> None:
        """Close every case at which `convicted` was present: it was to blame for all of them."""
        for case in list(self._cases):
            if convicted in case.present:
                self._cases.remove(case)
                for each in case.present:
                    each.unexplained = max(0, each.unexplained - 1)


def _is_hopeless(ticket: Ticket, run: int) -> bool:
    """Whether `ticket` gets no other engine after `run`."""
    deaths = 1 if ticket.answered_by == run else ticket.deaths + 1
    return deaths >= MAX_DEATHS or ticket.unexplained >= _MAX_UNEXPLAINED


def _alone(departed: Sequence[DepartedRequest]) -> list[DepartedRequest]:
    return list(departed[:1]) if len({each.digest for each in departed}) == 1 else []
