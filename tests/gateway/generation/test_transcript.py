"""A transcript after each event, with events as the engine sends them."""

from __future__ import annotations

from typing import Any

import pytest

from myllm.gateway.generation.replay import Diverged
from myllm.gateway.generation.transcript import Transcript

PROMPT = 14
END = 1  # the id of the token that ends an answer
Event = dict[str, Any]


def progress(cache: int = 2) -> Event:
    progress = {"total": PROMPT, "cache": cache, "processed": PROMPT}
    return token("", 0, 0) | {"prompt_progress": progress}


def token(content: str, number: int, count: int, **more: Any) -> Event:
    return {
        "content": content, "tokens": [number], "stop": False,
        "tokens_predicted": count, "tokens_evaluated": PROMPT, **more,
    }  # fmt: skip


def last(count: int, stop_type: str = "eos") -> Event:
    return {
        "content": "", "tokens": [], "stop": True, "stop_type": stop_type,
        "tokens_predicted": count, "tokens_evaluated": 99, "timings": {"cache_n": 50},
    }  # fmt: skip


def fed(*events: Event, max_tokens: int = 100) -> Transcript:
    transcript = Transcript(max_tokens)
    for event in events:
        transcript.take(event)
    return transcript


def test_an_undisturbed_answer() -> None:
    end = fed(
        progress(), token("Hi", 7, 1), token("!", 8, 2), token("", END, 3), last(3)
    ).finished()
    assert end.full_text == "Hi!"
    assert end.finish_reason == "stop"
    assert end.usage.as_dict() == {
        "prompt_tokens": PROMPT, "completion_tokens": 3, "total_tokens": 17, "cached_tokens": 2,
    }  # fmt: skip


def test_without_progress_the_last_event_has_the_cached_tokens() -> None:
    assert fed(token("Hi", 7, 1), last(1, "limit")).finished().usage.cached_tokens == 50


def test_a_continuation_counts_the_tokens_of_both_engines_and_the_prompt_once() -> None:
    transcript = fed(progress(), token("Hi", 7, 1), token(" you", 8, 2))
    assert transcript.ids({}) == [7, 8]
    assert transcript.remaining == 98
    transcript.begin_continuation()
    again = [token("!", 9, 1, tokens_evaluated=PROMPT + 2), token("", END, 2), last(2)]
    assert [transcript.take(event) for event in again] == ["!", "", ""]
    end = transcript.finished()
    assert end.full_text == "Hi you!"
    assert (end.usage.prompt_tokens, end.usage.completion_tokens) == (PROMPT, 4)
    assert end.usage.cached_tokens == 2


def test_tokens_inside_a_character_are_a_gap() -> None:
    transcript = fed(token("A", 7, 1), token(" 🙂", 229, 4), token("b", 8, 5))
    assert transcript.gaps() == {" 🙂"}
    assert transcript.ids({" 🙂": [799, 252, 229]}) == [7, 799, 252, 229, 8]
    assert transcript.produced == 5
    # Other tokens for the same text: the answer goes on from the text, the count stays.
    assert transcript.ids({" 🙂": [1, 2]}) == [7, 1, 2, 8]
    assert transcript.remaining == 95


def test_tokens_held_back_are_made_again() -> None:
    transcript = fed(token("A", 7, 1), token("", 8, 2), token("", 9, 3))
    assert transcript.ids({}) == [7]
    transcript.begin_continuation()
    assert transcript.take(token("", 8, 1)) == ""
    assert transcript.take(token("BC", 9, 2)) == "BC"
    assert transcript.ids({}) == [7, 8, 9]
    assert transcript.produced == 3


def test_held_back_and_inside_a_character() -> None:
    transcript = fed(token("A", 7, 1), token("", 8, 2), token("B🙂", 229, 5))
    assert transcript.gaps() == {"B🙂"}
    assert transcript.ids({"B🙂": [8, 1, 2, 229]}) == [7, 8, 1, 2, 229]


@pytest.mark.parametrize(
    ("spelling", "ids", "produced"), [(b"<|end|>", [7, 8], 2), (b"0", [7, 8, END], 3)]
)
def test_the_spelling_of_the_last_token_reveals_whether_it_ended_the_answer(
    spelling: bytes, ids: list[int], produced: int
) -> None:
    transcript = fed(token("A", 7, 1), token("", 8, 2), token("10", END, 3), max_tokens=3)
    assert transcript.doubtful == END
    assert not transcript.is_complete()
    transcript.settle(spelling)
    assert transcript.doubtful is None
    assert transcript.ids({}) == ids
    assert transcript.produced == produced
    assert transcript.is_complete() == (produced == 3)


def test_an_end_behind_a_gap() -> None:
    transcript = fed(token("A", 7, 1), token("", 229, 4), token("🙂", END, 5))
    transcript.settle(b"<|end|>")
    assert transcript.produced == 4
    assert transcript.ids({"🙂": [5, 6, 229]}) == [7, 5, 6, 229]


def test_an_answer_is_complete_when_every_token_was_sent() -> None:
    transcript = fed(progress(), token("A", 7, 1), token("B", 8, 2), max_tokens=2)
    assert transcript.is_complete()
    assert transcript.finished().finish_reason == "length"
    assert transcript.finished().usage.completion_tokens == 2


def test_an_answer_is_complete_when_the_stop_string_was_found() -> None:
    transcript = fed(token("A", 7, 1), token("", 8, 2), token(" ", 9, 3, timings={}))
    assert transcript.is_complete()
    end = transcript.finished()
    assert (end.full_text, end.finish_reason, end.usage.completion_tokens) == ("A ", "stop", 3)


def test_a_full_context() -> None:
    transcript = fed(token("A", 7, 1))
    transcript.end_by_length()
    assert transcript.finished().finish_reason == "length"


def test_a_replay_sends_only_what_is_new() -> None:
    transcript = fed(progress(), token("ab", 7, 1), token("cd", 8, 2))
    transcript.begin_replay()
    assert transcript.remaining == 100
    again = [token("a", 5, 1), token("bcde", 6, 2), token("f", 9, 3), last(3)]
    assert [transcript.take(event) for event in again] == ["", "e", "f", ""]
    end = transcript.finished()
    assert end.full_text == "abcdef"
    assert end.usage.completion_tokens == 3


def test_two_replays() -> None:
    transcript = fed(token("abcd", 7, 1))
    transcript.begin_replay()
    assert transcript.take(token("ab", 5, 1)) == ""
    transcript.begin_replay()
    assert transcript.take(token("abcdef", 5, 1)) == "ef"


def test_a_replay_that_diverges_is_noticed() -> None:
    for other in (token("abx", 5, 1), token("x", 5, 1), last(1)):
        transcript = fed(token("abc", 7, 1))
        transcript.begin_replay()
        with pytest.raises(Diverged):
            transcript.take(other)
