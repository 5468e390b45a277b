"""Which requests are kept, and how much of them."""

from __future__ import annotations

import gc
import weakref
from asyncio import CancelledError
from typing import Any, cast

import pytest

from myllm.errors import MyLLMError, QueueFull
from myllm.gateway.client import Client
from myllm.gateway.observers import captured_bodies
from myllm.gateway.observers.captured_bodies import CapturedBodies
from myllm.gateway.observers.recent_requests import (
    MOST,
    MOST_REFUSED,
    RecentRequests,
    State,
    Wanted,
    state_of,
)
from myllm.gateway.request_record import RequestRecord
from myllm.gateway.scheduling.tickets import RequestInfo, Ticket
from myllm.supervisor.spec import InstanceKey

DEMO, OTHER = InstanceKey("demo", "generate"), InstanceKey("other", "embed")
ADMIN = Client()
ANN, BOB = (Client(f"key:{name}", name, name, role="user") for name in ("ann", "bob"))


def request(
    number: int = 1,
    model: InstanceKey | None = DEMO,
    status: int = 200,
    client: Client = ADMIN,
    **more: Any,
) -> RequestRecord:
    ended = {"ended_at": 2.0} | more
    return RequestRecord(
        f"r{number}", "POST", "/api/chat", "native", "127.0.0.1",
        began_at=1.0, model=model, status=status, client=client, **ended,
    )  # fmt: skip


def ids(recent: RecentRequests, client: Client = ADMIN, **wanted: Any) -> list[str]:
    chosen = Wanted(**wanted)
    return [each.record.id for each in recent.entries(client) if chosen.has(each)]


def test_the_newest_come_first_and_the_oldest_are_dropped() -> None:
    recent = RecentRequests()
    for number in range(MOST + 5):
        recent.request_ended(request(number))
    assert ids(recent) == [f"r{number}" for number in reversed(range(5, MOST + 5))]
    assert recent.last == MOST + 5


def test_a_flood_of_refused_requests_pushes_out_no_other() -> None:
    recent = RecentRequests()
    recent.request_ended(request(1))
    for number in range(2, 2 + MOST_REFUSED + 50):
        recent.request_ended(request(number, model=None, status=401))
    shown = ids(recent)
    assert len(shown) == 1 + MOST_REFUSED
    assert shown[-1] == "r1"


def test_what_asked_no_model_and_worked_is_left_out() -> None:
    recent = RecentRequests()
    recent.request_ended(request(1, model=None))
    assert ids(recent) == []


def test_a_request_is_shown_from_its_queue_to_its_end() -> None:
    recent, record = RecentRequests(), request(1, status=0, ended_at=None)
    ticket = Ticket(DEMO, 1.0, RequestInfo(record=record))
    recent.queued(ticket)
    assert [state_of(each.record) for each in recent.entries(ADMIN)] == ["queued"]
    recent.granted(ticket, cast(Any, None))
    record.granted_at = 1.5
    assert [state_of(each.record) for each in recent.entries(ADMIN)] == ["running"]
    assert recent.entries(ADMIN)[0].number == 0
    record.status, record.ended_at = 200, 2.0
    recent.request_ended(record)
    assert [(each.number, state_of(each.record)) for each in recent.entries(ADMIN)] == [(1, "ok")]


@pytest.mark.parametrize(
    ("error", "status", "state"),
    [
        (None, 200, "ok"),
        (None, 404, "failed"),
        (QueueFull("full", 1), 429, "failed"),
        (MyLLMError("cut"), 200, "failed"),
        (CancelledError(), 200, "cancelled"),
        (GeneratorExit(), 0, "cancelled"),
        (None, 0, "cancelled"),
    ],
)
def test_how_a_request_ended(error: BaseException | None, status: int, state: State) -> None:
    recent = RecentRequests()
    recent.request_ended(request(1, status=status, error=error))
    [entry] = recent.entries(ADMIN)
    assert state_of(entry.record) == state


def test_requests_can_be_picked() -> None:
    recent = RecentRequests()
    recent.request_ended(request(1, client=ANN))
    recent.request_ended(request(2, model=OTHER, client=BOB, status=500))
    recent.request_ended(request(3, model=None, client=BOB, status=404))
    assert ids(recent, model="other") == ["r2"]
    assert ids(recent, key="bob") == ["r3", "r2"]
    assert ids(recent, status="failed") == ["r3", "r2"]
    assert ids(recent, status=404) == ["r3"]
    assert ids(recent, status="ok", key="bob") == []
    assert ids(recent, after=2) == ["r3"]


def test_a_user_sees_only_requests_with_its_own_key() -> None:
    recent = RecentRequests()
    for number, client in enumerate((ANN, BOB, ANN)):
        recent.request_ended(request(number, client=client))
    recent.request_ended(request(3, model=None, status=401, client=cast(Any, None)))
    assert ids(recent, ANN) == ["r2", "r0"]
    assert ids(recent, ADMIN) == ["r3", "r2", "r1", "r0"]


def test_nothing_large_is_kept() -> None:
    """A traceback refers to the bodies and messages of the functions that it came through."""

    class Large:
        pass

    def fails() -> tuple[weakref.ref[Large], MyLLMError]:
        large = Large()
        try:
            raise MyLLMError("x" * 10_000)
        except MyLLMError as failure:
            return weakref.ref(large), failure

    recent = RecentRequests()
    large, failure = fails()
    assert large() is not None
    recent.request_ended(request(1, status=500, error=failure, traceparent="0" * 60_000))
    del failure
    gc.collect()
    assert large() is None
    [entry] = recent.entries(ADMIN)
    assert isinstance(entry.record.error, MyLLMError)
    assert len(entry.record.error.detail) == 500
    assert entry.record.traceparent is None
    recent.request_ended(request(2, model=None, status=404))
    long = RequestRecord("r3", "GET", "/x" * 20_000, "native", "::1", status=404, ended_at=2.0)
    recent.request_ended(long)
    assert len(recent.entries(ADMIN)[0].record.path) == 200


def captured(recent: RecentRequests, number: int, body: bytes, model: InstanceKey | None) -> None:
    assert recent.bodies is not None
    record = request(number, model=model)
    recent.bodies.begin(record)
    recent.bodies.add(record, "request", body)
    recent.bodies.add(record, "response", b"ok")
    recent.request_ended(record)


def test_bodies_are_cut_and_the_oldest_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured_bodies, "MOST_OF_ONE", 10)
    monkeypatch.setattr(captured_bodies, "MOST", 30)
    bodies = CapturedBodies()
    recent = RecentRequests(bodies)
    captured(recent, 1, b"a" * 20, DEMO)
    [first] = recent.entries(ADMIN)
    kept = recent.captured(first.record)
    assert kept is not None
    assert (kept.request.text, kept.request.size, kept.response.text) == ("a" * 10, 20, "ok")
    for number in (2, 3):
        captured(recent, number, b"b" * 20, DEMO)
    assert recent.captured(first.record) is None
    assert bodies.kept == 24
    captured(recent, 4, b"secret of another route", None)
    assert bodies.kept <= 24, "bodies of requests that ask no model are dropped"
    assert bodies.forget_all() >= 1
    assert (bodies.kept, recent.captured(recent.entries(ADMIN)[0].record)) == (0, None)


def test_bodies_go_with_their_request() -> None:
    bodies = CapturedBodies()
    recent = RecentRequests(bodies)
    for number in range(MOST + 1):
        captured(recent, number, b"1234", DEMO)
    assert bodies.kept == MOST * 6


def test_what_is_under_way_when_bodies_are_forgotten_is_not_captured_further() -> None:
    bodies, record = CapturedBodies(), request(1)
    recent = RecentRequests(bodies)
    bodies.begin(record)
    bodies.add(record, "response", b"before")
    bodies.forget_all()
    bodies.add(record, "response", b"after")
    recent.request_ended(record)
    assert (bodies.kept, recent.captured(record)) == (0, None)


def test_keys_of_this_server_are_masked() -> None:
    bodies, record = CapturedBodies(), request(1)
    bodies.begin(record)
    bodies.add(record, "request", b'{"api_key": "sk-myllm-Abc_1-2", "model": "demo"}')
    kept = bodies.get(record)
    assert kept is not None
    assert kept.request.text == '{"api_key": "sk-myllm-***", "model": "demo"}'
