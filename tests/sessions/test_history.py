"""What a post means for a stored conversation."""

from __future__ import annotations

from typing import Any

from myllm.sessions.history import Message, from_wire, merge


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str) -> Message:
    return Message("assistant", text)


def system(text: str) -> Message:
    return Message("system", text)


STORED = [user("one"), assistant("1"), user("two"), assistant("2")]


def contents(messages: list[Message]) -> list[str]:
    return [message.content for message in messages]


def test_a_client_that_sends_only_the_new_turn() -> None:
    turn = merge(system("be brief"), STORED, [user("three")])
    assert contents(turn.prompt()) == ["be brief", "one", "1", "two", "2", "three"]
    assert turn.superseded == ()


def test_a_client_that_sends_the_whole_history() -> None:
    posted = [system("be brief"), *STORED, user("three")]
    turn = merge(system("be brief"), STORED, posted)
    assert contents(turn.prompt()) == ["be brief", "one", "1", "two", "2", "three"]
    assert contents(list(turn.new)) == ["three"]


def test_a_history_that_differs_supersedes_what_was_stored_after_it() -> None:
    posted = [user("one"), assistant("1"), user("two, but other"), assistant("!"), user("three")]
    turn = merge(None, STORED, posted)
    assert contents(list(turn.kept)) == ["one", "1"]
    assert contents(list(turn.superseded)) == ["two", "2"]
    assert contents(turn.prompt()) == ["one", "1", "two, but other", "!", "three"]


def test_a_retry_of_an_answered_message_answers_it_anew() -> None:
    turn = merge(None, STORED, [user("one"), assistant("1"), user("two")])
    assert contents(turn.prompt()) == ["one", "1", "two"]
    assert contents(list(turn.superseded)) == ["2"]
    first = merge(None, STORED[:2], [user("one")])
    assert contents(first.prompt()) == ["one"]


def test_a_question_without_a_whole_answer_is_not_asked_twice() -> None:
    unanswered = merge(None, [*STORED, user("three")], [user("three")])
    assert contents(unanswered.prompt()) == ["one", "1", "two", "2", "three"]
    assert (unanswered.superseded, unanswered.new) == ((), ())
    part = Message("assistant", "3 i", partial=True)
    cut = merge(None, [*STORED, user("three"), part], [user("three")])
    assert contents(cut.prompt()) == ["one", "1", "two", "2", "three"]
    assert cut.superseded == (part,)
    other = merge(None, [*STORED, user("three"), part], [user("four")])
    assert contents(other.prompt())[-3:] == ["three", "3 i", "four"]


def test_what_was_answered_can_be_said_again_as_a_new_turn() -> None:
    turn = merge(None, [*STORED[:2], user("go on"), assistant("2")], [user("go on")])
    assert contents(turn.prompt()) == ["one", "1", "go on", "2", "go on"]


def test_an_equal_system_message_is_not_repeated_and_another_replaces_it() -> None:
    same = merge(system("a"), STORED, [system("a"), user("three")])
    assert contents(same.prompt()).count("a") == 1
    other = merge(system("a"), STORED, [system("b"), user("three")])
    assert contents(other.prompt())[0] == "b"
    assert "a" not in contents(other.prompt())


def test_an_answer_continues_what_was_begun() -> None:
    begun = merge(None, [], [user("one"), assistant("The answer")]).begun
    assert begun == assistant("The answer")
    whole = Message("assistant", " is 1.", tokens=3).continuing(Message(begun.role, begun.content))
    assert (whole.content, whole.tokens) == ("The answer is 1.", None)
    counted = Message("assistant", "1", tokens=3)
    assert counted.continuing(Message("assistant", "It is ", tokens=2, key=7)) == Message(
        "assistant", "It is 1", tokens=5, key=7
    )
    assert merge(None, [], [user("one")]).begun is None


def test_a_partial_answer_is_carried_by_later_prompts() -> None:
    stored = [user("one"), Message("assistant", "It is", partial=True)]
    assert contents(merge(None, stored, [user("go on")]).prompt()) == ["one", "It is", "go on"]


def call(name: str = "call_1", arguments: Any = '{"city": "Paris"}') -> dict[str, Any]:
    function = {"name": "weather", "arguments": arguments}
    return {"id": name, "type": "function", "function": function}


def asks(**more: Any) -> Message:
    return from_wire({"role": "assistant", "content": None, "tool_calls": [call()], **more})


def result(text: str, name: str = "call_1") -> Message:
    return from_wire({"role": "tool", "content": text, "tool_call_id": name})


def test_a_result_goes_on_where_its_call_was() -> None:
    turn = merge(None, [user("Weather?"), asks()], [result("sunny")])
    assert [message.role for message in turn.prompt()] == ["user", "assistant", "tool"]
    whole = merge(None, [user("Weather?"), asks()], [user("Weather?"), asks(), result("sunny")])
    assert whole.prompt() == turn.prompt()


def test_what_a_call_says_counts_and_how_it_is_written_does_not() -> None:
    assert not asks().same_as(from_wire({"role": "assistant", "tool_calls": [call("call_2")]}))
    assert not asks().same_as(assistant(""))
    assert asks(thinking="hm").same_as(asks())
    with_index = {"index": 0, **call()}
    assert asks().same_as(
        from_wire({"role": "assistant", "content": "", "tool_calls": [with_index]})
    )
    as_object = from_wire({"role": "assistant", "tool_calls": [call(arguments={"city": "Paris"})]})
    assert asks().same_as(as_object)
    parts = [{"type": "text", "text": "Weather?"}]
    assert from_wire({"role": "user", "content": parts}) == user("Weather?")


def test_a_message_is_for_the_engine_what_it_was() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    parts = [{"type": "text", "text": "What is this?"}, picture]
    for wire in (
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "", "tool_calls": [call()]},
        {"role": "tool", "content": "sunny", "tool_call_id": "call_1"},
    ):
        assert from_wire(wire).wire() == wire
    assert from_wire({"role": "user", "content": parts}).content == "What is this?"
    assert asks(thinking="hm").wire()["reasoning_content"] == "hm"


def test_a_continued_answer_keeps_what_was_thought_before() -> None:
    begun = Message("assistant", "It is ", extra={"thinking": "hm"})
    assert Message("assistant", "1").continuing(begun).extra == {"thinking": "hm"}
