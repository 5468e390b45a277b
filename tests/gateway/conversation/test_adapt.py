"""Conversations as templates with certain traits accept them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from myllm.gateway.conversation.adapt import adapted, is_plain
from myllm.gateway.conversation.ignored import HEADER, Ignored
from myllm.gateway.conversation.messages import ChatMessage, Messages
from myllm.gateway.conversation.traits import STRICTEST, TemplateTraits

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


def system(text: str) -> ChatMessage:
    return {"role": "system", "content": text}


def user(text: str) -> ChatMessage:
    return {"role": "user", "content": text}


def assistant(text: str, *calls: str) -> ChatMessage:
    message: ChatMessage = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [
            {"id": each, "type": "function", "function": {"name": "f", "arguments": "{}"}}
            for each in calls
        ]
    return message


def result(call: str, text: str) -> ChatMessage:
    return {"role": "tool", "content": text, "tool_call_id": call, "name": "f"}


def fitted(*messages: ChatMessage, **traits: Any) -> Messages:
    ignored = Ignored()
    made = adapted(list(messages), TemplateTraits(**traits), ignored)
    assert ignored.headers() == {}
    return made


def roles(messages: Messages) -> str:
    return " ".join(message["role"] for message in messages)


def test_what_every_template_accepts() -> None:
    assert is_plain([user("a")])
    assert is_plain([system("s"), user("a"), assistant("b"), user("c")])
    assert is_plain([user("a"), assistant("to be continued")])
    for messages in (
        [],
        [system("s")],
        [assistant("a"), user("b")],
        [user("a"), user("b")],
        [user("a"), system("s")],
        [system("s"), system("t"), user("a")],
        [user("a"), assistant("", "x"), result("x", "r")],
        [user("a"), assistant("", "x")],
    ):
        assert not is_plain(messages), messages


def test_a_tolerant_template_gets_the_conversation_as_it_is() -> None:
    messages = [system("s"), user("a"), user("b"), assistant("t", "x", "y"), result("x", "1")]
    messages += [result("y", "2"), system("late"), user("c")]
    assert fitted(*messages) == messages


def test_late_systems_are_merged_at_the_front() -> None:
    made = fitted(system("a"), user("b"), system("c"), user("d"), late_systems=False)
    assert made == [system("a\n\nc"), user("b"), user("d")]
    assert fitted(user("b"), system("c"), late_systems=False) == [system("c"), user("b")]


def test_pictures_survive_merging() -> None:
    pictured: ChatMessage = {"role": "user", "content": [PICTURE]}
    [merged] = fitted(user("a"), pictured, alternates=True)
    kinds = [part["type"] for part in merged["content"] if isinstance(part, dict)]
    assert kinds == ["text", "text", "image_url"]


def test_neighbours_of_one_role_are_merged() -> None:
    messages = [user("a"), user("b"), assistant("c"), assistant("d"), user("e")]
    made = fitted(*messages, alternates=True)
    assert made == [user("a\n\nb"), assistant("c\n\nd"), user("e")]


def test_an_answer_that_begins_gets_an_empty_question() -> None:
    assert fitted(assistant("a"), user("b"), alternates=True)[0] == user("")


def test_an_answer_to_be_continued_is_not_merged() -> None:
    made = fitted(user("a"), assistant("b"), assistant("c"), alternates=True)
    assert made == [user("a"), assistant("b"), user(""), assistant("c")]


def test_a_template_that_needs_a_user_gets_one() -> None:
    assert fitted(system("s"), needs_user=True) == [system("s"), user("")]
    assert fitted(system("s")) == [system("s")]


def test_calls_and_results_as_text() -> None:
    messages = [user("a"), assistant("t", "x"), result("x", "1")]
    made = fitted(*messages, calls=False)
    assert made[1] == assistant("t\n[Call of f: {}]")
    assert made[2] == result("x", "1")
    made = fitted(*messages, calls=False, results=False)
    assert made[2] == user("[Result of f]\n1")


def test_a_result_without_its_call_is_a_text_of_the_user() -> None:
    made = fitted(user("a"), {"role": "tool", "content": "1", "tool_call_id": "gone"})
    assert made == [user("a"), user("[Result of a tool]\n1")]


def test_one_call_each() -> None:
    messages = [user("a"), assistant("t", "x", "y"), result("y", "2"), result("x", "1"), user("b")]
    made = fitted(*messages, parallel_calls=False)
    assert roles(made) == "user assistant tool assistant tool user"
    assert [made[1]["tool_calls"][0]["id"], made[2]["tool_call_id"]] == ["x", "x"]
    assert [made[3]["tool_calls"][0]["id"], made[4]["content"]] == ["y", "2"]


def test_short_ids_are_the_same_for_call_and_result_and_in_each_turn() -> None:
    messages = [user("a"), assistant("", "call_1_0", "abcdefgh1"), result("call_1_0", "1")]
    made = fitted(*messages, short_ids=True)
    ids = [call["id"] for call in made[1]["tool_calls"]]
    assert all(len(each) == 9 and each.isalnum() for each in ids)
    assert ids[1] == "abcdefgh1"
    assert made[2]["tool_call_id"] == ids[0]
    assert fitted(*messages, short_ids=True) == made


def test_text_beside_calls() -> None:
    messages = [user("a"), assistant("t", "x"), result("x", "1")]
    made = fitted(*messages, text_beside_calls="in a message before")
    assert made == [user("a"), assistant("t"), assistant("", "x"), result("x", "1")]
    ignored = Ignored()
    made = adapted(messages, TemplateTraits(text_beside_calls="nowhere"), ignored)
    assert made == [user("a"), assistant("", "x"), result("x", "1")]
    assert ignored.headers()[HEADER] == "text beside tool call x"


def test_text_beside_calls_of_earlier_turns_only() -> None:
    loop = [user("a"), assistant("t", "x"), result("x", "1")]
    again = [user("c"), assistant("u", "y"), result("y", "2")]
    place = "together in the last turn"
    assert fitted(*loop, text_beside_calls=place) == loop
    made = fitted(*loop, assistant("b"), *again, text_beside_calls=place)
    assert made[:3] == [user("a"), assistant("t"), assistant("", "x")]
    assert made[-3:] == again
    made = fitted(*loop, assistant("to be continued"), text_beside_calls=place)
    assert made[1] == assistant("t")


def test_results_apart_from_their_calls() -> None:
    messages = [user("a"), assistant("", "x", "y"), user("b"), result("y", "2"), user("c")]
    messages += [assistant("", "z"), result("z", "3"), assistant("d"), result("x", "1")]
    assert fitted(*messages) == messages
    made = fitted(*messages, results_apart=False)
    assert roles(made) == "user assistant tool tool user user assistant tool assistant"
    assert [made[number]["content"] for number in (2, 3, 7)] == ["2", "1", "3"]


def test_thoughts_that_displace_text() -> None:
    thinking: ChatMessage = {**assistant("t", "x"), "reasoning_content": "think"}
    answer: ChatMessage = {**assistant("b"), "reasoning_content": "think more"}
    messages = [user("a"), thinking, result("x", "1"), answer, user("c")]
    assert not is_plain([user("a"), answer, user("c")])
    assert fitted(*messages) == messages
    made = fitted(*messages, thoughts="instead of text")
    assert (made[1]["content"], made[1]["reasoning_content"]) == ("", "think\n\nt")
    assert made[3] == answer
    made = fitted(*messages, thoughts="never")
    assert made == [user("a"), assistant("t", "x"), messages[2], assistant("b"), user("c")]


def test_a_question_after_results_follows_an_empty_answer() -> None:
    messages = [user("a"), assistant("", "x"), result("x", "1"), user("b")]
    made = fitted(*messages, user_after_result=False)
    assert made == [*messages[:3], assistant(""), user("b")]


def test_a_call_that_was_never_answered_gets_a_result() -> None:
    made = fitted(user("a"), assistant("", "x"), user("b"), user_after_result=False)
    assert roles(made) == "user assistant tool assistant user"
    assert made[2]["tool_call_id"] == "x"


def test_the_system_is_part_of_the_question_where_tool_loops_lose_it() -> None:
    messages = [system("s"), user("a"), assistant("", "x"), result("x", "1")]
    made = fitted(*messages, late_systems=False, system_in_tool_loops=False)
    assert made[0] == user("s\n\na")
    assert fitted(*messages[:2], late_systems=False, system_in_tool_loops=False) == messages[:2]


MESSAGES = st.one_of(
    st.builds(system, st.just("word")),
    st.builds(user, st.just("word")),
    st.builds(assistant, st.just("word")),
    st.builds(assistant, st.just("word"), st.sampled_from("xyz")),
    st.builds(assistant, st.just("word"), st.just("x"), st.just("y")),
    st.builds(result, st.sampled_from("xyz"), st.just("word")),
)


@given(st.lists(MESSAGES, min_size=1, max_size=12))
def test_the_strictest_template_gets_any_conversation_whole(messages: Messages) -> None:
    numbered = [{**each, "content": f"word{number}."} for number, each in enumerate(messages)]
    ignored = Ignored()
    made = adapted(numbered, STRICTEST, ignored)  # type: ignore[arg-type]
    first = 1 if made[0]["role"] == "system" else 0
    turns = [message["role"] for message in made[first:]]
    assert turns == ["user", "assistant"] * (len(turns) // 2) + ["user"] * (len(turns) % 2)
    text = "\n".join(str(message["content"]) for message in made)
    assert all(f"word{number}." in text for number in range(len(messages)))
    assert text.count("[Call of f") == sum(len(each.get("tool_calls", ())) for each in messages)
    assert ignored.headers() == {}
