"""Recorded answers of the engine, cut and joined wherever a connection could do that."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myllm.errors import EngineError
from myllm.gateway.engine_io import sse
from myllm.gateway.engine_io.sse import (
    LAST,
    Framing,
    event,
    events_in,
    split_at_error,
    split_at_progress,
)
from myllm.gateway.generation.deltas import Form, StreamedAnswer

RECORDED = Path(__file__).parent / "recorded"
NAMES = ("chat", "emoji", "call", "completion")
PARIS = "The capital of France is Paris."


def recorded(name: str) -> bytes:
    return (RECORDED / f"{name}.sse").read_bytes()


def read(chunks: Sequence[bytes]) -> list[dict[str, Any]]:
    """The events of a stream that comes in these chunks."""
    framing, events = Framing(), []
    for chunk in chunks:
        events += list(events_in(framing.whole(chunk)))
    assert not framing.is_open()
    return events


def cut(stream: bytes, places: Sequence[int]) -> list[bytes]:
    ends = [0, *sorted(places), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(ends)]


def said(form: Form, events: Sequence[dict[str, Any]]) -> StreamedAnswer:
    whole = StreamedAnswer(form)
    whole.take(events)
    return whole


def test_what_the_recorded_answers_say() -> None:
    chat = said("chat", read([recorded("chat")]))
    assert (chat.text, chat.finish_reason) == (PARIS, "stop")
    assert chat.usage is not None
    assert chat.usage["completion_tokens"] == 10
    assert max(said("chat", read([recorded("emoji")])).text) > "\uffff"
    called = said("chat", read([recorded("call")]))
    assert json.loads(called.calls[0].arguments) == {"city": "Paris"}
    assert (called.calls[0].name, called.finish_reason) == ("weather", "tool_calls")
    text = said("plain", read([recorded("completion")]))
    assert (text.text, text.finish_reason) == (", in a magical f", "length")


@pytest.mark.parametrize("name", NAMES)
def test_a_cut_at_any_byte(name: str) -> None:
    stream = recorded(name)
    whole = read([stream])
    for place in range(len(stream) + 1):
        framing = Framing()
        first, second = framing.whole(stream[:place]), framing.whole(stream[place:])
        assert first + second == stream
        if place % 7 == 0:  # the bytes are the same; that they are read alike, some show
            assert [*events_in(first), *events_in(second)] == whole


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_any_chunks(name: str, data: st.DataObject) -> None:
    stream = recorded(name)
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=40))
    assert read(cut(stream, places)) == read([stream])


def test_byte_by_byte() -> None:
    stream = recorded("call") + event({"more": "🙂"})
    assert read([bytes([each]) for each in stream]) == read([stream])


def test_comments_are_no_events() -> None:
    first, *rest = recorded("chat").split(b"\n\n")
    stream = b"\n\n".join([b":", first, b": still there", *rest])
    assert read([stream]) == read([recorded("chat")])


def test_an_event_of_a_megabyte() -> None:
    long = {"content": "é" * 2**20}
    stream = event(long) + recorded("completion")
    chunks = [stream[start : start + 1000] for start in range(0, len(stream), 1000)]
    assert read(chunks)[0] == long


def test_an_event_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_IN_EVENT", 2**20)
    framing = Framing()
    assert framing.whole(event({"content": "x" * (2**20 - 100)}))
    for _ in range(4):
        assert framing.whole(b"x" * 2**18) == b""
    with pytest.raises(EngineError, match="an event of over 1 MiB"):
        framing.whole(b"x")


@pytest.mark.parametrize("bad", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf0\x9f\x99"])
def test_what_is_not_utf_8(bad: bytes) -> None:
    framing = Framing()
    stream = event({"content": "good"}) + b'data: {"content":"' + bad + b'"}\n\n'
    with pytest.raises(EngineError, match="not UTF-8"):
        framing.whole(stream)


@pytest.mark.parametrize("bad", [b"{", b"[1]", b"7", b'{"a": 1}{"b": 2}', b""])
def test_what_is_no_json_object(bad: bytes) -> None:
    with pytest.raises(EngineError, match=r"is not (a )?JSON"):
        list(events_in(b"data: " + bad + b"\n\n"))


@pytest.mark.parametrize("name", NAMES)
def test_an_error_after_any_event(name: str) -> None:
    *events, _ = recorded(name).split(b"\n\n")
    error = event({"error": {"code": 500, "message": "it is full"}})
    for number in range(len(events)):
        before = b"".join(each + b"\n\n" for each in events[:number])
        told, found = split_at_error(before + error)
        assert told == before
        assert found == {"code": 500, "message": "it is full"}


def test_an_answer_that_talks_of_errors_is_none() -> None:
    block = event({"content": 'data: {"error": 1}\n\ndata: {"error":{}}'})
    assert split_at_error(block) == (block, None)


def test_the_reading_of_the_prompt_is_cut_off() -> None:
    """Also where one block has the end of the reading and the beginning of the answer."""
    first = event({"choices": [], "prompt_progress": {"total": 9, "cache": 0, "processed": 4}})
    second = event({"choices": [], "prompt_progress": {"total": 9, "cache": 0, "processed": 9}})
    answer = event({"choices": [{"delta": {"content": 'about "prompt_progress": {}'}}]}) + LAST
    assert split_at_progress(answer) == (b"", answer)
    assert split_at_progress(first + second) == (first + second, b"")
    assert split_at_progress(first + second + answer) == (first + second, answer)
