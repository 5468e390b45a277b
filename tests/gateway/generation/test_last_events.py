"""The end of a stream is read wherever its last events were cut into blocks."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from myllm.errors import EngineError
from myllm.gateway.engine_io.sse import LAST, event
from myllm.gateway.generation.deltas import Form
from myllm.gateway.generation.last_events import End, read_end
from myllm.gateway.usage import Usage

TIMINGS = {"cache_n": 4, "prompt_n": 6, "predicted_n": 3}
COUNTS = {
    "prompt_tokens": 10,
    "completion_tokens": 3,
    "prompt_tokens_details": {"cached_tokens": 4},
}
USAGE = Usage(10, 3, 4)


def chat(content: str | None, reason: str | None = None, **more: Any) -> bytes:
    delta = {} if content is None else {"content": content}
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **more})


def text(content: str, reason: str | None = None, **more: Any) -> bytes:
    return event({"choices": [{"index": 0, "text": content, "finish_reason": reason}], **more})


def plain(content: str, **more: Any) -> bytes:
    return event({"content": content, "tokens_evaluated": 10, "tokens_predicted": 3, **more})


ENDS: list[tuple[Form, list[bytes]]] = [
    ("chat", [chat("a"), chat("b"), chat(None, "length", timings=TIMINGS), LAST]),
    (
        "chat",
        [
            chat("a"),
            chat(None, "length"),
            event({"choices": [], "usage": COUNTS, "timings": TIMINGS}),
            LAST,
        ],
    ),
    ("text", [text("a"), text("", "length", usage=COUNTS, timings=TIMINGS), LAST]),
    ("plain", [plain("a"), plain("", stop=True, stop_type="limit", timings=TIMINGS)]),
]


@pytest.mark.parametrize(("form", "events"), ENDS)
def test_however_the_events_are_cut_into_blocks(form: Form, events: list[bytes]) -> None:
    for cuts in itertools.product([False, True], repeat=len(events) - 1):
        blocks = [events[0]]
        for cut, each in zip(cuts, events[1:], strict=True):
            if cut:
                blocks.append(each)
            else:
                blocks[-1] += each
        assert read_end(form, blocks) == End(USAGE, "length", TIMINGS)


def test_the_last_timings_count_if_each_event_has_some() -> None:
    early = {**TIMINGS, "predicted_n": 1}
    blocks = [chat("a", timings=early) + chat(None, "stop", timings=TIMINGS), LAST]
    assert read_end("chat", blocks).usage == USAGE


def test_words_in_the_answer_are_no_end() -> None:
    blocks = [chat('"finish_reason":"stop"'), chat('"usage":{}'), LAST]
    assert read_end("chat", blocks) == End(Usage(), None, None)


def test_a_slot_without_a_cache_counts_as_empty() -> None:
    last = plain("", stop=True, stop_type="eos", timings={**TIMINGS, "cache_n": -1})
    assert read_end("plain", [last]) == End(Usage(10, 3, 0), "stop", {**TIMINGS, "cache_n": -1})


def test_an_end_that_is_not_json_is_an_error() -> None:
    with pytest.raises(EngineError, match="not JSON"):
        read_end("chat", [b'data: {"choices":[\n\n' + LAST])
