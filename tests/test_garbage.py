"""When cycles that have grown old are searched for."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from myllm import garbage
from myllm.garbage import Garbage


class Cycle:
    """Something that only a search frees."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture
def searcher() -> Iterator[Garbage]:
    thresholds = gc.get_threshold()
    yield Garbage()
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def old_garbage() -> weakref.ref[Cycle]:
    """A cycle that nobody needs any more, and that has survived what Python does by itself."""
    cycle = Cycle()
    gc.collect(1)
    return weakref.ref(cycle)


def test_old_garbage_goes_when_the_server_is_idle(searcher: Garbage) -> None:
    found = old_garbage()
    searcher.look(idle=False)
    assert found() is not None
    searcher.look(idle=True)
    assert found() is None


def test_one_that_is_never_idle_is_searched_after_a_while(
    searcher: Garbage, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = old_garbage()
    monkeypatch.setattr(garbage, "_AT_LEAST_EVERY_S", 0)
    searcher.look(idle=False)
    assert found() is None


def test_where_nothing_happens_nothing_is_searched(searcher: Garbage) -> None:
    searcher.look(idle=True)
    before = gc.get_stats()[2]["collections"]
    searcher.look(idle=True)
    assert gc.get_stats()[2]["collections"] == before
