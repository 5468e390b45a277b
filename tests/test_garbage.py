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
    """An unreachable cycle that has survived the collections of Python itself."""
    cycle = Cycle()
    gc.collect(1)
    return weakref.ref(cycle)


def test_old_garbage_goes_while_little_is_under_way(searcher: Garbage) -> None:
    found = old_garbage()
    searcher.look(under_way=1000)
    assert found() is not None
    searcher.look(under_way=8)
    assert found() is None


def test_in_a_lasting_crowd_it_goes_after_a_while(
    searcher: Garbage, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = old_garbage()
    monkeypatch.setattr(garbage, "_AT_LEAST_EVERY_S", 0)
    searcher.look(under_way=1000)
    assert found() is None


def test_where_nothing_happens_nothing_is_searched(searcher: Garbage) -> None:
    searcher.look(under_way=8)
    before = gc.get_stats()[2]["collections"]
    searcher.look(under_way=8)
    assert gc.get_stats()[2]["collections"] == before
