"""The items of an answer whose text, thoughts and calls alternate: streamed, whole and stored."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from myllm.api.openai.responses_events import Events
from myllm.api.openai.responses_order import Order
from myllm.api.openai.responses_output import Form
from myllm.api.openai.responses_references import shown
from myllm.api.openai.responses_tools import Tools
from myllm.gateway.generation.events import Call, CallPart, Finished, Thinking, Token
from myllm.gateway.usage import Usage
from myllm.sessions.history import Message

Piece = Token | Thinking | CallPart
KEY = "a" * 48


def call(index: int, *arguments: str) -> list[Piece]:
    """The pieces of a call."""
    begun = CallPart(index, f"call_{index}", "go")
    return [begun, *(CallPart(index, arguments=piece) for piece in arguments)]


def joined(pieces: list[Piece], ended: Any) -> Finished:
    """The end of an answer of these pieces."""
    calls: dict[int, Call] = {}
    for part in (piece for piece in pieces if isinstance(piece, CallPart)):
        made = calls.setdefault(part.index, Call(part.id, part.name))
        made.arguments += part.arguments
    text = "".join(piece.text for piece in pieces if isinstance(piece, Token))
    thinking = "".join(piece.text for piece in pieces if isinstance(piece, Thinking))
    return Finished(text, Usage(1, 1, 0), ended, thinking, tuple(calls.values()))


def record(ended: str) -> dict[str, Any]:
    known = {"created_at": 1, "model": "demo", "asked": {}, "ended": ended}
    return {"id": f"resp_{KEY}", "order": [], **known}


def streamed(pieces: list[Piece], ended: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The events of a stream, and the output in its last one."""
    events = Events(KEY, record(ended), Form(Tools()))
    frames = b"".join([*map(events.say, pieces), events.end(joined(pieces, ended))])
    told = [json.loads(line[6:]) for line in frames.splitlines() if line.startswith(b"data: ")]
    return told, told[-1]["response"]["output"]


def whole(pieces: list[Piece], ended: Any) -> list[dict[str, Any]]:
    known, end = record(ended), joined(pieces, ended)
    order = Order(known["order"])
    for piece in pieces:
        order.take(piece)
    status = "incomplete" if ended == "length" else "completed"
    parts = KEY, end.full_text, end.thinking, end.calls, status, known["order"]
    return Form(Tools()).output(*parts)


def stored(pieces: list[Piece], ended: Any, calls: int) -> list[dict[str, Any]]:
    """The output of an answer of which the first `calls` calls were stored."""
    known, end = record(ended), joined(pieces, ended)
    order = Order(known["order"])
    for piece in pieces:
        order.take(piece)
    wire = [
        {"id": each.id, "function": {"name": each.name, "arguments": each.arguments}}
        for each in end.calls[:calls]
    ]
    extra: Any = {"thinking": end.thinking, "tool_calls": wire, "response": known}
    message = Message("assistant", end.full_text, extra=json.loads(json.dumps(extra)))
    output: list[dict[str, Any]] = shown(message)["output"]
    return output


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([Token("a"), *call(0, "{}"), Token("b")], "msg_ fc_0 msg_1"),
        ([*call(0, "{}"), Token("b")], "fc_0 msg_"),
        ([Thinking("a"), Token("b"), Thinking("c"), Token("d")], "rs_ msg_ rs_1 msg_1"),
        ([Thinking("a"), *call(0, "{}"), *call(1, "{}")], "rs_ fc_0 fc_1"),
        ([*call(0, "{", "}"), Token("a"), *call(1, "{}"), Token("b")], "fc_0 msg_ fc_1 msg_1"),
        ([*call(0, "{"), Token("a"), *call(0, "}")[1:], Token("b")], "fc_0 msg_"),
        ([*call(0, "{"), Thinking("a"), *call(0, "}")[1:], *call(1, "{}")], "fc_0 rs_ fc_1"),
        ([Token(""), Thinking(""), *call(0, "{}"), Token("")], "fc_0"),
        ([], "msg_"),
    ],
)
def test_items_come_in_the_order_of_their_pieces(pieces: list[Piece], expected: str) -> None:
    told, output = streamed(pieces, "stop")
    assert [each["id"].replace(KEY, "") for each in output] == expected.split()
    assert {each["status"] for each in output} == {"completed"}
    assert whole(pieces, "stop") == output
    assert stored(pieces, "stop", 2) == output
    open_items: list[str] = []
    for event in told:  # one item is open at a time, and its events name it
        match event["type"].removeprefix("response."):
            case "output_item.added":
                assert not open_items
                open_items.append(event["item"]["id"])
            case "output_item.done":
                assert event["item"] == output[event["output_index"]]
                assert open_items == [event["item"]["id"]]
                open_items.clear()
            case "completed":
                assert not open_items
            case _:
                assert open_items == [event["item_id"]]


PIECES = st.lists(
    st.one_of(
        st.text("xy", max_size=3).map(lambda text: [Token(text)]),
        st.text("xy", max_size=3).map(lambda text: [Thinking(text)]),
        st.just("call"),
    ),
    max_size=8,
)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(PIECES, st.sampled_from(["stop", "length"]))
def test_streamed_whole_and_stored_answers_agree(given_pieces: list[Any], ended: str) -> None:
    pieces: list[Piece] = []
    count = 0
    for each in given_pieces:
        if each == "call":
            pieces += call(count, '{"a":', "1}")
            count += 1
        else:
            pieces += each
    output = streamed(pieces, ended)[1]
    assert whole(pieces, ended) == output
    assert stored(pieces, ended, count) == output
    assert len({each["id"] for each in output}) == len(output)
    expected = "incomplete" if ended == "length" else "completed"
    assert [each["status"] for each in output] == ["completed"] * (len(output) - 1) + [expected]


def test_a_call_that_was_cut_is_not_stored() -> None:
    pieces = [Token("a"), *call(0, "{}"), *call(1, '{"a":')]
    output = streamed(pieces, "length")[1]
    assert [each["status"] for each in output] == ["completed", "completed", "incomplete"]
    assert whole(pieces, "length") == output
    assert stored(pieces, "length", 1) == output[:2]


def test_an_answer_that_was_stored_without_an_order() -> None:
    made = Form(Tools()).output(KEY, "text", "thought", [Call("a", "go", "{}")], "completed")
    assert [each["id"].replace(KEY, "") for each in made] == ["rs_", "msg_", "fc_0"]


def test_the_beginning_that_a_client_sent_belongs_to_the_first_text() -> None:
    order: Any = [["message", 1], ["call", "a"], ["message", 1]]
    made = Form(Tools()).output(KEY, "It is so", "", [Call("a", "go", "{}")], "completed", order)
    texts = [each["content"][0]["text"] for each in made if each["type"] == "message"]
    assert texts == ["It is s", "o"]
