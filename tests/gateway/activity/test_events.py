"""Numbered events, what a reader has missed of them, and what changed between two snapshots."""

from __future__ import annotations

import pytest

from myllm.gateway.activity.changes import View, changes
from myllm.gateway.activity.events import KEPT, NumberedEvents
from myllm.gateway.activity.listener import MOST_WAITING, Listener
from myllm.supervisor.spec import InstanceKey

DEMO, OTHER = InstanceKey("demo", "generate"), InstanceKey("other", "generate")


def filled(count: int) -> NumberedEvents:
    events = NumberedEvents()
    for number in range(count):
        events.add("queue", ("demo",), {"number": number}, None)
    return events


def test_an_event_is_a_server_sent_event_with_an_id() -> None:
    events = NumberedEvents()
    event = events.add("ready", ("demo",), {"model": "demo"}, {"model": "demo"})
    assert event.frame.decode() == (
        f'id: {events.last_id}\nevent: ready\ndata: {{"model":"demo"}}\n\n'
    )
    assert event.for_users == event.frame
    assert events.add("pull", ("demo",), {}, None).for_users is None


def test_a_reader_gets_what_it_has_missed() -> None:
    events = filled(3)
    start, _, _ = events.last_id.partition("-")
    assert events.since(events.last_id) == []
    assert [each.number for each in events.since(f"{start}-1") or ()] == [2, 3]
    assert len(events.since(f"{start}-0") or ()) == 3


def test_what_is_too_old_cannot_be_told() -> None:
    events = filled(KEPT + 10)
    start, _, _ = events.last_id.partition("-")
    assert len(events.since(f"{start}-10") or ()) == KEPT
    assert events.since(f"{start}-9") is None


@pytest.mark.parametrize(
    "wrong", ["", "-", "3", "{start}-", "{start}--1", "{start}-4", "{start}-1\n", "{start}-١",
              "00000000-1", "{start}-" + "9" * 400, "x" * 1000, "{start}-1-1"],
)  # fmt: skip
def test_an_id_that_makes_no_sense_is_no_id(wrong: str) -> None:
    events = filled(3)
    start, _, _ = events.last_id.partition("-")
    assert events.since(wrong.format(start=start)) is None
    assert events.since(None) is None


def test_after_an_interruption_no_reader_has_seen_everything() -> None:
    events = filled(3)
    last = events.last_id
    events.interrupt()
    assert events.since(last) is None
    assert events.since(events.last_id) == []


def test_another_start_has_other_ids() -> None:
    assert filled(1).since(filled(1).last_id) is None


def test_changes_of_queues_loads_and_errors() -> None:
    before = {DEMO: View(queued=1, percent=10), OTHER: View()}
    now = {DEMO: View(queued=0, busy=1, slots=4), OTHER: View(percent=42, error="no room")}
    found = [(each.name, each.key, each.data) for each in changes(before, now)]
    names = {"model": "other", "role": "generate"}
    assert found == [
        ("queue", DEMO, {"model": "demo", "role": "generate", "queued": 0, "busy": 1, "slots": 4}),
        ("loading", OTHER, names | {"progress": 0.42}),
        ("failed", OTHER, names | {"error": "no room"}),
    ]
    assert list(changes(now, now)) == []


async def test_a_slow_reader_is_told_that_it_has_missed_events() -> None:
    listener, events = Listener(), filled(1)
    [event] = events.since(f"{events.last_id.partition('-')[0]}-0") or ()
    for _ in range(MOST_WAITING):
        listener.put(event)
    assert not listener.has_missed
    listener.put(event)
    listener.put(event)
    listener.put_memory(b"first")
    listener.put_memory(b"last")
    assert listener.has_missed
    assert await listener.news() == ([], b"last")
    listener.forget()
    listener.put(event)
    assert (listener.has_missed, await listener.news()) == (False, ([event], None))
