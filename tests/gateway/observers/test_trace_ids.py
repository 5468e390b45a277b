"""The ids of traces: W3C's form, and what is not of that form."""

from __future__ import annotations

import pytest

from myllm.gateway.observers.trace_ids import Parent, parent_of, trace_id_of
from tests.gateway.observers.records import ID, ended

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    "given", [f"00-{TRACE}-{SPAN}-01", f" 00-{TRACE}-{SPAN}-01\t", f"cc-{TRACE}-{SPAN}-01-what"]
)
def test_a_clients_trace(given: str) -> None:
    record = ended(traceparent=given)
    assert parent_of(record) == Parent(TRACE, SPAN, "01")
    assert trace_id_of(record) == TRACE


@pytest.mark.parametrize(
    "given",
    [
        *("", "-", "00", f"{TRACE}-{SPAN}", f"00-{TRACE}-{SPAN}", f"00-{TRACE}-{SPAN}-1"),
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-what",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n00",
        f"00-{TRACE[:-1]}\N{ARABIC-INDIC DIGIT ONE}-{SPAN}-01",
        "0" * 60_000,
    ],
)
def test_what_is_no_trace_is_ignored(given: str) -> None:
    record = ended(traceparent=given)
    assert parent_of(record) is None
    assert trace_id_of(record) == ID


def test_an_id_that_a_client_chose_gives_one_valid_trace_id() -> None:
    ids = {trace_id_of(ended(id=name)) for name in ("req-1", "req-1", "req-2", "0" * 32)}
    assert len(ids) == 3
    assert all(len(each) == 32 and int(each, 16) for each in ids)
