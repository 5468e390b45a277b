"""What a chat's prompt is built of, with an engine that counts one token for each word."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from myllm.errors import PromptTooLong
from myllm.gateway.engine_io import calls
from myllm.gateway.engine_io.template_probes import TemplateProbes
from myllm.gateway.engine_io.token_list import Tokens
from myllm.gateway.gateway import Gateway
from myllm.gateway.generation.prompt_builder import PromptBuilder
from myllm.gateway.scheduling.tickets import RequestInfo
from myllm.models.model import broken_model
from myllm.models.templates import ChatTemplate
from myllm.sessions.history import Merged, Message
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey, InstanceSpec

COUNT = 7  # what the engine says of a prompt with pictures


@dataclass
class FakeEngine:
    """Renders messages to their contents. `asked` has the bodies that it was to render."""

    context_size: int = 100
    leaves_answers_open: bool = True
    asked: list[dict[str, Any]] = field(default_factory=list)

    def instance(self) -> Instance:
        chat = cast(ChatTemplate, SimpleNamespace(leaves_answers_open=self.leaves_answers_open))
        model = replace(broken_model(Path("demo"), False, ""), chat=chat)
        key = InstanceKey(model.name, "generate")
        spec = InstanceSpec(key, model, self.context_size, slots=1, batch=32)
        return cast(Instance, SimpleNamespace(spec=spec))

    async def apply_template(self, instance: Instance, body: dict[str, Any]) -> str:
        self.asked.append(body)
        return " ".join(message["content"] for message in body["messages"])

    async def count_chat(self, instance: Instance, body: dict[str, Any]) -> int:
        self.asked.append(body)
        return COUNT

    async def tokenize(self, instance: Instance, text: str, most: int) -> Tokens:
        count = len(text.split())
        return Tokens(count, [1] * min(count, most))

    async def tokens(self, instance: Instance, ticket: object, text: str) -> Tokens:
        count = len(text.split())
        return Tokens(count, [2] * min(count, self.context_size))

    async def count(self, instance: Instance, text: str) -> int:
        return len(text.split())


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    engine = FakeEngine()
    for name in ("apply_template", "count_chat", "tokenize"):
        monkeypatch.setattr(calls, name, getattr(engine, name))
    return engine


def builder(
    engine: FakeEngine,
    *messages: Message,
    left_out: int = 0,
    max_tokens: int = 10,
    chat_fields: dict[str, Any] | None = None,
) -> PromptBuilder:
    gateway = cast(
        Gateway, SimpleNamespace(counts=engine, slot_cache=engine, templates=TemplateProbes())
    )
    ticket = RequestInfo().ticket(InstanceKey("demo", "generate"))
    conversation = Merged(None, messages[:-1], (), messages[-1:])
    return PromptBuilder(gateway, ticket, conversation, messages, left_out, max_tokens, chat_fields)


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str) -> Message:
    return Message("assistant", text)


async def test_completion_gets_tokens_that_begin_with_what_the_slot_has_read(
    engine: FakeEngine,
) -> None:
    prompt = await builder(engine, user("hello you")).build(engine.instance())
    assert (prompt.text, prompt.tokens) == ("hello you", [2, 2])


async def test_the_last_new_message_is_counted_once(engine: FakeEngine) -> None:
    prompts = builder(engine, user("one"), assistant("two"), user("three words now"))
    await prompts.build(engine.instance())
    assert [each.tokens for each in prompts.conversation.new] == [3]
    counted = prompts.conversation
    await prompts.build(engine.instance())
    assert prompts.conversation is counted


async def test_what_did_not_fit_stays_out_of_the_next_engines_prompt(engine: FakeEngine) -> None:
    long, short = " ".join(["w"] * 80), " ".join(["w"] * 30)
    prompts = builder(engine, user(long), assistant(long), user(short), assistant("a"), user("end"))
    prompt = await prompts.build(engine.instance())
    assert prompt.dropped_messages == prompts.left_out == 2
    engine.asked.clear()
    assert await prompts.build(engine.instance()) == prompt
    assert [len(body["messages"]) for body in engine.asked] == [3]


async def test_a_last_turn_that_does_not_fit_is_refused(engine: FakeEngine) -> None:
    prompts = builder(engine, user(" ".join(["w"] * 100)))
    with pytest.raises(PromptTooLong, match=r"100 tokens; .* 'myllm reload demo'$"):
        await prompts.build(engine.instance())


async def test_an_open_answer_is_appended_if_the_template_would_close_it(
    engine: FakeEngine,
) -> None:
    engine.leaves_answers_open = False
    prompt = await builder(engine, user("go on: "), assistant("as be")).build(engine.instance())
    assert prompt.text == "go on: as be"
    assert [len(body["messages"]) for body in engine.asked] == [1]


async def test_the_chat_route_gets_messages_and_its_template_all_fields(
    engine: FakeEngine,
) -> None:
    fields = {"tools": ["a tool"]}
    prompt = await builder(engine, user("hello"), chat_fields=fields).build(engine.instance())
    assert (prompt.tokens, prompt.wire) == ([1], [{"role": "user", "content": "hello"}])
    assert engine.asked == [{"messages": prompt.wire, **fields}]


async def test_a_prompt_with_a_picture_is_only_counted(engine: FakeEngine) -> None:
    seen = replace(user("look"), extra={"parts": [{"type": "image_url"}]})
    prompt = await builder(engine, seen, chat_fields={}).build(engine.instance())
    assert (prompt.text, prompt.tokens, prompt.size) == ("", [], COUNT)
    assert prompt.wire == [{"role": "user", "content": [{"type": "image_url"}]}]
