"""Which request it is that kills a model's engines.

    unsuspected ──────> suspected ──────> on trial ──────> convicted
         ^                  │                 │             the engine died again, and this
         │                  │                 │             was all it worked on
         └──────────────────┴─────────────────┘
      another one is convicted, or      it gets something new,
      its client leaves                 or ends

Suspected are, when an engine dies: those it had given nothing yet, for what is wrong with a request
shows as a rule when it begins; those that had been there when an earlier one died, and nobody was
convicted of that; and one that was alone. A death is a case. It is closed when one of its suspects
is convicted, which clears the others, or when all are cleared.

Suspects go before everybody else, one at a time: as long as one is on trial nobody else gets a
slot. So does a request that two engines died under without anything new, whoever was convicted of
that: a third one would be its last. If the engine dies while the answer of one that was cleared
goes on beside the trial, the suspect is tried first and alone on the next engine. Who left in the
meantime cannot be tried. If such a one is the only suspect that is left, that is held against what
it asked (`poisons.py`), and so is the end of one that was on trial each time but not alone.

In doubt nobody is convicted, and the third death ends a request with an error of the engine: when
somebody else may have killed it, or when many have been convicted one after the other and nobody
has been given anything in between. Then it may be the engine that is broken, and of one that has
never given anything it is likely, so that this speaks against the model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from myllm.gateway.scheduling.tickets import Ticket

# A trial that lasts for longer is over: hangs are found within this as a rule.
TRIAL_S = 120.0
_MOST_CASES = 16
# Of a model that has given something to somebody, and of another one.
_MOST_IN_A_ROW, _MOST_AT_FIRST = 10, 3
# So many engines may die under one request without anything new between them; and with.
MOST_DEATHS = 3
_MOST_UNEXPLAINED = 6


@dataclass(frozen=True)
class DepartedRequest:
    """One that left before its engine had given it anything: the digest of what it asked, its
    owner if it has a key, and when it left."""

    digest: bytes
    owner: str | None
    left_at: float

    @classmethod
    def of(cls, ticket: Ticket, now: float) -> DepartedRequest | None:
        """None for one that asked nothing."""
        if ticket.demand is None:
            return None
        client = ticket.request.client
        owner = None if client.key_name is None else client.owner
        return cls(ticket.demand.digest(), owner, now)


@dataclass(eq=False)
class _Case:
    """A death of an engine; `present` are all that were on it and are still here."""

    suspects: set[Ticket]
    present: Sequence[Ticket]
    departed: list[DepartedRequest] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """What a death means. `convicted` is who is to blame for it, `hopeless` are those whose
    answers end; unless `is_explained` by a request, it speaks against the model. `alone` is who
    is suspected and cannot be tried any more.
    """

    convicted: Ticket | None = None
    hopeless: Sequence[Ticket] = ()
    is_explained: bool = False
    alone: Sequence[DepartedRequest] = ()


class Suspects:
    """The cases of one model. `now` is a monotonic time in seconds; `on_trial` is who is tried."""

    def __init__(self) -> None:
        self._cases: deque[_Case] = deque(maxlen=_MOST_CASES)
        self._first: Ticket | None = None
        self.on_trial: Ticket | None = None
        self._trial_ends = 0.0
        self._convicted_in_a_row = 0
        self._has_given = False

    def holds_up(self, now: float) -> bool:
        """Whether nobody may have a slot, because one is on trial."""
        return self.on_trial is not None and now < self._trial_ends

    def next(self, waiting: Iterable[Ticket]) -> Ticket | None:
        """Who of those that wait is to be tried now."""
        return min(
            filter(self._is_suspected, waiting),
            key=lambda each: (each is not self._first, -each.deaths, each.enqueued_at),
            default=None,
        )

    def seated(self, ticket: Ticket, now: float) -> None:
        """`ticket` has a slot; if it is suspected, nobody else gets one for now."""
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
        """The engine `run` died while it worked for `present`, and perhaps still for those that
        are `gone`; `by_itself`: nobody else can have killed it."""
        trial, self.on_trial = self.on_trial, None
        departed = list(gone)
        is_alone = trial is not None and list(present) == [trial] and not departed
        most = _MOST_IN_A_ROW if self._has_given else _MOST_AT_FIRST
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
        """An engine has given `ticket` something new; returns who is suspected alone now."""
        self._convicted_in_a_row, self._has_given = 0, True
        return self._clear(ticket, None)

    def left(self, ticket: Ticket, departed: DepartedRequest | None) -> list[DepartedRequest]:
        """`ticket` is over; with `departed` its client went away before anything came. Returns who
        is suspected alone now."""
        return self._clear(ticket, departed)

    def _is_suspected(self, ticket: Ticket) -> bool:
        if ticket.deaths >= MOST_DEATHS - 1:
            return True  # its last chance, which it gets alone
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
        """Whatever `convicted` was there for was its doing."""
        for case in list(self._cases):
            if convicted in case.present:
                self._cases.remove(case)
                for each in case.present:
                    each.unexplained = max(0, each.unexplained - 1)


def _is_hopeless(ticket: Ticket, run: int) -> bool:
    """Whether the engine `run` was the last one for `ticket`."""
    deaths = 1 if ticket.answered_by == run else ticket.deaths + 1
    return deaths >= MOST_DEATHS or ticket.unexplained >= _MOST_UNEXPLAINED


def _alone(departed: Sequence[DepartedRequest]) -> list[DepartedRequest]:
    return list(departed[:1]) if len({each.digest for each in departed}) == 1 else []
