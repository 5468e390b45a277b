"""Conversations as files: they can be imported again, and people can read them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myllm.errors import InvalidRequest
from myllm.sessions.history import Message
from myllm.sessions.transfer import FORMATS, Document, Format, read, write

_TRICKY = st.sampled_from(
    ["", "\n", "\n\n", "a\r\nb", "<!-- myllm message: {} -->", "\\<!-- myllm session: ", "### User"]
)
_TEXT = st.characters(codec="utf-8", exclude_characters="\0")
_CONTENTS = st.lists(_TRICKY | st.text(_TEXT, max_size=20), max_size=4).map("\n".join)
_MESSAGES = st.builds(
    Message,
    st.sampled_from(("system", "user", "assistant", "tool")),
    _CONTENTS,
    st.booleans(),
    extra=st.none()
    | st.fixed_dictionaries(
        {"thinking": _CONTENTS},
        optional={
            "tool_call_id": st.text(max_size=5),
            "tool_calls": st.lists(st.fixed_dictionaries({"id": _CONTENTS}), max_size=2),
            "parts": st.lists(st.fixed_dictionaries({"text": _CONTENTS}), max_size=2),
            "in_place": st.booleans(),
        },
    ),
)


@given(
    st.builds(
        Document,
        st.text(_TEXT, max_size=5),
        st.text(_TEXT, max_size=5),
        st.text(_TEXT, max_size=10) | st.just("--> x"),
        st.lists(_MESSAGES, min_size=1, max_size=5).map(tuple),
    ),
    st.sampled_from(FORMATS),
)
def test_what_is_written_is_read_back(document: Document, form: Format) -> None:
    assert read(write(document, form), form) == document


def test_people_can_read_the_markdown() -> None:
    messages = Message("user", "Hello?"), Message("assistant", "Hel", partial=True)
    assert write(Document("s", "demo", "Greetings", messages), "markdown") == (
        "# Greetings\n\n"
        '<!-- myllm session: {"version": 1, "id": "s", "model": "demo", "title": "Greetings"}'
        " -->\n\n"
        '<!-- myllm message: {"role": "user"} -->\n### User\n\nHello?\n\n'
        '<!-- myllm message: {"role": "assistant", "partial": true} -->\n### Assistant\n\nHel\n\n'
    )


_GOOD = {
    "version": 1,
    "id": "s",
    "model": "demo",
    "title": "",
    "messages": [{"role": "user", "content": "hi"}],
}


def _with(**extra: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": "", **extra}]}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"version": 2}, "version must be 1, not 2"),
        ({"messages": "x"}, "messages must be a list"),
        ({"messages": []}, "no message"),
        ({"messages": ["x"]}, r"messages\[0\] must be an object"),
        ({"messages": [{"role": "robot", "content": "x"}]}, r"messages\[0\]: role must be one of"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\]: content must be a text"),
        ({"messages": [{"role": "user", "content": "", "partial": 1}]}, "partial must be"),
        ({"model": None}, "model must be a text"),
        (_with(thinking=1), r"messages\[0\]: thinking must be a text"),
        (_with(tool_calls={}), r"messages\[0\]: tool_calls must be a list"),
        (_with(parts=["x"]), r"messages\[0\]: parts must be a list of objects"),
        ({"title": "\0"}, r"it: title must not have the character U\+0000"),
    ],
)
def test_wrong_json_is_refused_with_its_place(change: dict[str, object], told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        read(json.dumps(_GOOD | change), "json")


def test_half_of_a_character_is_read_as_in_a_request() -> None:
    halved = {"messages": [{"role": "user", "content": "\ud800"}]}
    assert read(json.dumps(_GOOD | halved), "json").messages == (Message("user", "\ufffd"),)


_HEAD = '<!-- myllm session: {"version": 1, "id": "s", "model": "m", "title": ""} -->\n\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("# Something else\n", "no line '<!-- myllm session: "),
        (_HEAD, "no message"),
        (_HEAD + "<!-- myllm message: x -->\n### User\n\nhi\n\n", "message 1 is not valid JSON"),
        (_HEAD + '<!-- myllm message: {"role": "user"} -->\nhi\n', "message 1 must be a comment"),
        ("<!-- myllm session: [] -->\n", "must be a JSON object"),
    ],
)
def test_wrong_markdown_is_refused_with_its_place(text: str, told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        read(text, "markdown")
