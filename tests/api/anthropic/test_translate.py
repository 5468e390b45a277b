"""What Anthropic's messages become: OpenAI's, without any block of Anthropic's own servers."""

from __future__ import annotations

from threading import get_ident
from typing import Any

import pytest
from pydantic import ValidationError

from myllm.api.anthropic import translate
from myllm.api.anthropic.schemas import CountTokensRequest, MessagesRequest
from myllm.api.anthropic.translate import fields_of, messages_of
from myllm.errors import InvalidRequest
from myllm.gateway.conversation.ignored import HEADER, Ignored
from myllm.gateway.conversation.normalize import normalized

PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
PICTURE = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
TOOL = {"name": "weather", "input_schema": {"type": "object"}}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
LONG_SOURCE = {"type": "content", "content": [{"type": "text", "text": "x"}] * 600}


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


def assistant(*content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(content)}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def result(*content: Any, **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "t1", "content": list(content)} | more


def call(**more: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Rome"}} | more


def asked(*messages: Any, **more: Any) -> CountTokensRequest:
    given = {"model": "demo", "messages": messages or [user(text("Hello"))]}
    return CountTokensRequest.model_validate(given | more)


def wire(*messages: Any, **more: Any) -> tuple[list[dict[str, Any]], str]:
    """The messages for the engine, and what was left out of them."""
    ignored = Ignored()
    made: list[Any] = normalized(messages_of(asked(*messages, **more), ignored), ignored)
    return made, ignored.headers().get(HEADER, "")


def fields(**more: Any) -> tuple[dict[str, Any], str]:
    """The other fields for the engine, and what was left out of them."""
    ignored = Ignored()
    return fields_of(asked(**more), ignored), ignored.headers().get(HEADER, "")


def test_null_is_the_same_as_absent() -> None:
    optional = set(MessagesRequest.model_fields) - {"model", "messages", "max_tokens"}
    given = asked().model_dump() | {"max_tokens": 5} | dict.fromkeys(optional)
    request = MessagesRequest.model_validate(given)
    ignored = Ignored()
    said = {"role": "user", "content": [text("Hello")]}
    assert messages_of(request, ignored) == [said]
    assert fields_of(request, ignored) == {"chat_template_kwargs": {"enable_thinking": False}}
    assert not ignored.headers()
    assert request.options() == {"max_tokens": 5}


def test_null_inside_of_blocks_and_tools() -> None:
    messages = [
        {"role": "user", "content": None},
        assistant(call(input=None, cache_control=None), text(None)),  # type: ignore[arg-type]
        user(result(content=None, is_error=None)),
        assistant({"type": "thinking", "thinking": None, "signature": None}),
        user({"type": "document", "source": {"type": "text", "data": "x"}, "title": None}),
    ]
    made, left_out = wire(*messages)
    assert not left_out
    assert [each["role"] for each in made] == ["user", "assistant", "tool", "user"]
    assert made[1]["tool_calls"][0]["function"]["arguments"] == "{}"
    nulls = dict.fromkeys(("type", "description", "cache_control", "strict"))
    choice = {"type": "auto", "name": None, "disable_parallel_tool_use": None}
    thinking = {"type": "adaptive", "budget_tokens": None, "display": None}
    config = {"format": None, "effort": None}
    made_fields, _ = fields(
        tools=[TOOL | nulls], tool_choice=choice, thinking=thinking, output_config=config
    )
    assert made_fields == {
        "tools": [{"type": "function", "function": {
            "name": "weather", "parameters": {"type": "object", "properties": {}}}}],
        "tool_choice": "auto",
        "chat_template_kwargs": {"enable_thinking": True},
    }  # fmt: skip


def test_thoughts_are_replayed() -> None:
    thought = {"type": "thinking", "thinking": "I look it up.", "signature": "s"}
    made, left_out = wire(
        user(text("Weather?")),
        assistant({"type": "redacted_thinking", "data": "x"}, thought, call()),
        user(result(text("sunny"))),
    )
    assert made[1]["reasoning_content"] == "I look it up."
    assert made[1]["content"] == ""
    assert left_out == "messages[1].content[0] (redacted_thinking)"


def test_system_messages_stay_where_they_are() -> None:
    made, _ = wire(
        user(text("One")),
        {"role": "system", "content": "Agents: none."},
        assistant(text("Two")),
        user(text("Three")),
        system="Be brief.",
    )
    assert [each["role"] for each in made] == ["system", "user", "system", "assistant", "user"]


def test_results_come_before_what_the_user_adds() -> None:
    made, left_out = wire(
        user(text("Weather?")),
        assistant(call()),
        user(result(text("one"), {"type": "image", "source": PICTURE}, text("two"))),
        user(text("And?")),
    )
    assert not left_out
    assert [each["role"] for each in made[2:]] == ["tool", "user"]
    assert [part["type"] for part in made[2]["content"]] == ["text", "image_url", "text"]
    failed, _ = wire(user(text("?")), assistant(call()), user(result(text("no"), is_error=True)))
    assert failed[2]["content"] == "Error:\nno"


def test_documents_with_text_are_read() -> None:
    plain = {"type": "document", "source": {"type": "text", "data": "Moo."}, "title": "Cows"}
    pieces = {"type": "content", "content": [text("Baa."), {"type": "image", "source": PICTURE}]}
    found = {
        "type": "search_result", "source": "a.example", "title": "Pigs", "content": [text("Oink.")]
    }  # fmt: skip
    made, left_out = wire(user(plain, found, {"type": "document", "source": pieces}))
    assert not left_out
    texts = [part["text"] for part in made[0]["content"] if part["type"] == "text"]
    assert texts == [
        "Document: Cows\nMoo.", "Search result: Pigs (a.example)", "Oink.", "Document:", "Baa."
    ]  # fmt: skip
    assert made[0]["content"][-1]["type"] == "image_url"


@pytest.mark.parametrize(
    ("block", "kind"),
    [
        ({"type": "document", "source": PDF, "title": "a.pdf"}, "document"),
        ({"type": "document", "source": {"type": "url", "url": "https://a/b.pdf"}}, "document"),
        ({"type": "image", "source": {"type": "file", "file_id": "file_1"}}, "image"),
        ({"type": "container_upload", "file_id": "file_1"}, "container_upload"),
        ({"type": "hologram", "data": "AAAA"}, "hologram"),
    ],
)
def test_what_cannot_be_read(block: dict[str, Any], kind: str) -> None:
    """It is named and left out of the history, and of a tool's result; a question about it is
    refused."""
    question = [text("What does it say?")]
    before, left_out = wire(user(block, *question), assistant(text("Moo.")), user(text("And?")))
    assert left_out == f"messages[0].content[0] ({kind})"
    assert "left out" in before[0]["content"]
    assert "What does it say?" in before[0]["content"]
    of_tool, left_out = wire(user(text("Read it.")), assistant(call()), user(result(block), block))
    assert f"messages[2].content[0].content[0] ({kind})" in left_out
    assert "left out" in of_tool[2]["content"]
    with pytest.raises(InvalidRequest, match=r"^messages\[1\]\.content\[1\]: .* cannot read this"):
        wire(assistant(text("Yes?")), user(*question, block))


def test_what_other_servers_did_becomes_text() -> None:
    search = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "q"}}
    found = {"type": "web_search_result", "title": "T", "url": "u", "encrypted_content": "secret"}
    hits = {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [found]}
    ran = {
        "type": "bash_code_execution_tool_result",
        "content": {"type": "x", "stdout": "7", "return_code": 0},
    }
    made, left_out = wire(user(text("?")), assistant(search, hits, ran), user(text("And?")))
    assert made[1]["content"] == (
        '[server_tool_use: web_search {"query":"q"}]\n[web_search_tool_result: T u]\n'
        "[bash_code_execution_tool_result: 7]"
    )
    assert left_out.count("messages[1]") == 3


def test_tools_of_other_servers_are_left_out() -> None:
    kinds = ("web_search_20250305", "bash_20250124", "text_editor_20250728", "computer_20250124")
    tools = [{"type": kind, "name": kind[:4]} for kind in kinds]
    made, left_out = fields(
        tools=[*tools, TOOL | {"type": "custom"}],
        mcp_servers=[{"type": "url", "name": "docs", "url": "https://a"}],
        context_management={"edits": [
            {"type": "clear_thinking_20251015", "keep": "all"},
            {"type": "clear_tool_uses_20250919"},
        ]},
    )  # fmt: skip
    assert [tool["function"]["name"] for tool in made["tools"]] == ["weather"]
    assert left_out == ", ".join(
        [
            "context_management.edits[1] (clear_tool_uses_20250919)",
            "mcp_servers[0] (docs)",
            *(f"tools[{number}] ({kind})" for number, kind in enumerate(kinds)),
        ]
    )
    with pytest.raises(InvalidRequest, match="there are no tools"):
        fields(tools=tools, tool_choice={"type": "any"})
    with pytest.raises(InvalidRequest, match="there is no tool 'web_'"):
        fields(tools=[*tools, TOOL], tool_choice={"type": "tool", "name": "web_"})


def test_fields_that_are_unknown_are_named() -> None:
    harmless = {"metadata": {"user_id": "u"}, "service_tier": "auto", "max_tokens": 5}
    _, left_out = fields(**harmless, container="c", hologram=True, nothing=None)
    assert left_out == "container, hologram"


def test_how_much_to_think() -> None:
    def effort(thinking: str | None, level: str | None) -> object:
        config = None if thinking is None else {"type": thinking}
        made, _ = fields(thinking=config, output_config={"effort": level})
        return made.get("reasoning_effort")

    assert effort("adaptive", "low") == effort("enabled", "low") == "low"
    assert effort("adaptive", "max") == effort("adaptive", "xhigh") == "high"
    assert effort("disabled", "high") is effort(None, "high") is effort("adaptive", None) is None


@pytest.mark.parametrize("place", ["output_config", "output_format"])
def test_the_form_of_the_answer(place: str) -> None:
    form: dict[str, Any] = {"type": "json_schema", "schema": SCHEMA}
    given = {place: {"format": form} if place == "output_config" else form}
    assert fields(**given)[0]["json_schema"] == SCHEMA
    unused = fields(**given, tools=[TOOL], tool_choice={"type": "none"})[0]
    assert unused["json_schema"] == SCHEMA


@pytest.mark.parametrize(
    "long",
    [
        {"system": [text("x")] * 600},
        {"messages": [user(*[text("x")] * 600)]},
        {"messages": [user(text("x"))] * 600},
        {"messages": [user(*[text("x")] * 300), assistant(*[text("x")] * 300)]},
        {"messages": [user(result(*[text("x")] * 600))]},
        {"messages": [user(result({"type": "search_result", "content": [text("x")] * 600}))]},
        {"messages": [user({"type": "document", "source": LONG_SOURCE})]},
        {"messages": [user({"type": "fetched", "content": {"content": [text("x")] * 600}})]},
    ],
)
async def test_long_conversations_are_translated_in_a_thread(
    monkeypatch: pytest.MonkeyPatch, long: dict[str, Any]
) -> None:
    """Blocks count wherever they are."""
    threads: list[int] = []
    monkeypatch.setattr(translate, "messages_of", lambda *_: threads.append(get_ident()))
    await translate.translated(asked(**long), Ignored())
    await translate.translated(asked(user(result(text("x")))), Ignored())
    assert threads[0] != get_ident()
    assert threads[1] == get_ident()


@pytest.mark.parametrize(
    "wrong",
    [
        {"output_config": {"format": {"type": "xml"}}},
        {"output_config": {"format": {"type": "json_schema"}}},
        {"thread": {"type": "create"}},
        {"compaction": {}},
        {"tools": [{"name": "weather"}]},
        {"tool_choice": {"type": "some"}},
    ],
)
def test_what_would_change_the_answer_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        asked(**wrong)


@pytest.mark.parametrize(
    "message", [user(call()), user({"type": "thinking", "thinking": "x"}), assistant(result())]
)
def test_blocks_in_messages_of_the_wrong_role_are_refused(message: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="cannot have a block"):
        wire(message)
