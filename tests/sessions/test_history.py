"""What a post means for a stored conversation."""

from __future__ import annotations

from typing import Any

import pytest

from myllm.errors import InvalidRequest
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


def test_the_first_sentence_said_again_is_a_new_turn() -> None:
    stored = [user("Hello!"), assistant("Hi"), user("two"), assistant("2")]
    turn = merge(None, stored, [user("Hello!")])
    assert contents(turn.prompt()) == ["Hello!", "Hi", "two", "2", "Hello!"]
    assert turn.superseded == ()


def test_the_only_question_again_is_answered_anew() -> None:
    for answer in (assistant("1"), Message("assistant", "1", partial=True)):
        turn = merge(None, [user("one"), answer], [user("one")])
        assert (contents(turn.prompt()), turn.superseded) == (["one"], (answer,))
    other = merge(None, [user("one"), assistant("1")], [user("one ")])
    assert contents(other.prompt()) == ["one", "1", "one "]
    two = [user("a"), user("b"), assistant("1")]
    assert contents(merge(None, two, [user("a"), user("b")]).prompt()) == ["a", "b"]
    assert contents(merge(None, two, [user("a")]).prompt()) == ["a", "b", "1", "a"]


def test_the_only_question_again_under_another_system_message() -> None:
    stored = [user("one"), assistant("1")]
    turn = merge(system("a"), stored, [system("b"), user("one")])
    assert contents(turn.prompt()) == ["b", "one"]


def test_a_client_can_state_what_it_sends() -> None:
    one_turn = STORED[:2]
    said_twice = merge(None, one_turn, [user("one")], "append")
    assert contents(said_twice.prompt()) == ["one", "1", "one"]
    begun_anew = merge(None, STORED, [user("one")], "full")
    assert contents(begun_anew.prompt()) == ["one"]
    assert contents(list(begun_anew.superseded)) == ["1", "two", "2"]
    example = [user("like"), assistant("this"), user("three")]
    appended = merge(None, STORED, example, "append")
    assert contents(appended.prompt()) == ["one", "1", "two", "2", "like", "this", "three"]
    cut = [*STORED, user("three"), Message("assistant", "3 i", partial=True)]
    again = merge(None, cut, [user("three")], "append")
    assert contents(again.prompt()) == ["one", "1", "two", "2", "three"]


def test_an_earlier_message_that_was_edited_begins_another_history() -> None:
    posted = [user("one!"), assistant("1"), user("two")]
    turn = merge(None, STORED, posted)
    assert (turn.kept, contents(list(turn.superseded))) == ((), ["one", "1", "two", "2"])
    assert contents(turn.prompt()) == ["one!", "1", "two"]


def test_an_answer_that_was_trimmed_is_the_same_and_a_question_is_not() -> None:
    stored = [user("one"), assistant("\n 1 \n"), user("two"), assistant("2")]
    turn = merge(
        None, stored, [user("one"), assistant("1"), user("two"), assistant("2"), user("3")]
    )
    assert turn.kept == tuple(stored)
    edited = merge(None, stored, [user("one"), assistant("1"), user(" two"), assistant("2")])
    assert contents(edited.prompt()) == ["one", "\n 1 \n", " two", "2"]
    begun = merge(None, [user("one"), assistant("It is ")], [user("one"), assistant("It is")])
    assert contents(begun.prompt()) == ["one", "It is"]


def test_the_beginning_of_an_answer_is_no_history() -> None:
    """It stands behind the last user message."""
    turn = merge(None, STORED, [user("three"), assistant("The answer")])
    assert contents(turn.prompt()) == ["one", "1", "two", "2", "three", "The answer"]
    part = Message("assistant", "3 i", partial=True)
    other = merge(None, [*STORED, user("three"), part], [user("three"), assistant("It")])
    assert contents(other.prompt())[-2:] == ["three", "It"]
    same = merge(None, [*STORED, user("three"), part], [user("three"), assistant("3 i")])
    assert (same.new, same.begun) == ((), part)
    alone = merge(None, [*STORED, user("three"), part], [assistant("3 i")])
    assert (alone.new, alone.begun) == ((), part)


def test_system_messages_at_the_beginning_are_one_and_later_ones_stay_in_place() -> None:
    posted = [system("a"), system("b"), user("one"), system("c")]
    turn = merge(None, [], posted)
    assert contents(turn.prompt()) == ["a\n\nb", "one", "c"]
    stored = [*turn.new, assistant("1")]
    again = merge(turn.system, stored, posted)  # the only question
    assert again.system is turn.system
    assert contents(again.prompt()) == ["a\n\nb", "one", "c"]
    whole = merge(turn.system, stored, [*posted, assistant("1"), user("two")])
    assert contents(whole.prompt()) == ["a\n\nb", "one", "c", "1", "two"]
    assert contents(list(whole.new)) == ["two"]
    more = merge(turn.system, stored, [user("two"), system("d")])
    assert contents(more.prompt()) == ["a\n\nb", "one", "c", "1", "two", "d"]
    repeated = merge(turn.system, [*stored, *more.new], [user("two"), system("d")])
    assert repeated.new == ()


def test_a_post_without_a_turn_needs_one_to_answer() -> None:
    with pytest.raises(InvalidRequest, match="the session's last turn is answered"):
        merge(None, STORED, [system("b")])
    part = Message("assistant", "3 i", partial=True)
    assert merge(None, [user("three"), part], [system("b")]).begun == part
    assert contents(merge(None, STORED, [system("b")], "full").prompt()) == ["b"]


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


def test_results_are_part_of_a_question() -> None:
    stored = [user("Weather?"), asks(), result("sunny"), Message("assistant", "It", partial=True)]
    for posted in ([result("sunny")], [asks(), result("sunny")]):
        again = merge(None, stored, posted)
        assert again.prompt() == stored[:3]
    turn = merge(None, stored[:2], [asks(), result("sunny")])
    assert turn.prompt() == stored[:3]
    answered = [*stored[:3], assistant("It is sunny.")]
    first = merge(None, answered, [user("Weather?")])
    assert contents(first.prompt()) == ["Weather?"]
    later = [*answered, user("And now?"), asks(), result("rain"), assistant("It rains.")]
    assert merge(None, later, [user("Weather?")]).kept == tuple(later)
    whole = merge(None, later, [*answered, user("And now?"), asks(), result("snow")])
    assert contents(list(whole.superseded)) == ["rain", "It rains."]


def test_a_question_with_another_picture_is_another_one() -> None:
    def shown(data: str) -> Message:
        picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
        return from_wire({"role": "user", "content": [{"type": "text", "text": "What?"}, picture]})

    stored = [shown("AA=="), assistant("A cat")]
    assert merge(None, stored, [shown("AA==")]).prompt() == stored[:1]
    assert merge(None, stored, [shown("AQ==")]).prompt() == [*stored, shown("AQ==")]
    assert merge(None, stored, [user("What?")]).prompt() == [*stored, user("What?")]


def test_what_a_call_says_counts_and_what_was_thought_before_does_not() -> None:
    assert not asks().same_as(from_wire({"role": "assistant", "tool_calls": [call("call_2")]}))
    assert not asks().same_as(assistant(""))
    assert asks(reasoning_content="hm").same_as(asks())
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
    assert asks(reasoning_content="hm").wire()["reasoning_content"] == "hm"


def test_a_continued_answer_keeps_what_was_thought_before() -> None:
    begun = Message("assistant", "It is ", extra={"thinking": "hm"})
    assert Message("assistant", "1").continuing(begun).extra == {"thinking": "hm"}
