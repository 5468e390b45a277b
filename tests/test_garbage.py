"""When the server searches for old unreachable cycles."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from myllm import garbage
from myllm.garbage import Garbage


class Cycle:
    """An object that only the cycle collector frees."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture
def searcher() -> Iterator[Garbage]:
    thresholds = gc.get_threshold()
    yield Garbage()
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def old_garbage() -> weakref.ref[Cycle]:
    """An unreachable cycle that has survived Python's own collections."""
    cycle = Cycle()
    gc.collect(1)
    return weakref.ref(cycle)


def test_old_garbage_is_freed_while_few_clients_are_connected(searcher: Garbage) -> None:
    found = old_garbage()
    searcher.look(connections=1000, body_bytes=0)
    assert found() is not None
    searcher.look(connections=8, body_bytes=0)
    assert found() is None


def test_old_garbage_is_freed_after_a_while_under_lasting_load(
    searcher: Garbage, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = old_garbage()
    monkeypatch.setattr(garbage, "_AT_LEAST_EVERY_S", 0)
    searcher.look(connections=1000, body_bytes=0)
    assert found() is None


def test_the_objects_of_a_large_request_are_not_searched(searcher: Garbage) -> None:
    found = old_garbage()
    searcher.look(connections=1, body_bytes=2**20)
    assert found() is not None
    searcher.look(connections=0, body_bytes=0)
    assert found() is None


def test_an_idle_server_does_not_search(searcher: Garbage) -> None:
    searcher.look(connections=8, body_bytes=0)
    before = gc.get_stats()[2]["collections"]
    searcher.look(connections=8, body_bytes=0)
    assert gc.get_stats()[2]["collections"] == before
