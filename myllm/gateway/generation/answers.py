"""One request's answer, from the queue to the last token.

An answer is an asynchronous generator of events, so its cleanup (the upstream connection
closed, then the slot released) runs in one place. Whoever iterates must close it on every way
out (`contextlib.aclosing`): a client can leave while an event is being sent, and then nothing
else would.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Protocol

import orjson

from myllm.errors import InvalidRequest, MyLLMError, StoreFailed, Unavailable
from myllm.gateway.engine_io import calls
from myllm.gateway.gateway import Gateway
from myllm.gateway.generation.chat_route import wire_calls
from myllm.gateway.generation.completion import Generation
from myllm.gateway.generation.engine_turn import EngineTurn, Fit
from myllm.gateway.generation.events import Call, Event, Finished, Thinking, Token
from myllm.gateway.generation.sampling import DEFAULTS, engine_fields, resolve
from myllm.gateway.model_lookup import model_for
from myllm.gateway.prompt.fit import Prompt, Render, fit
from myllm.gateway.prompt.prefixes import of_messages, of_text
from myllm.gateway.scheduling.demand import Demand
from myllm.gateway.scheduling.tickets import RequestInfo
from myllm.models.registry import Model
from myllm.sessions.history import Extra, Merged, Message, Style
from myllm.sessions.session import Session
from myllm.sessions.store import SessionStore
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey


class Answer(Protocol):
    """What a dialect needs of an answer."""

    @property
    def phase(self) -> str:
        """What it is waiting for, in two words; for people who watch the stream."""
        ...

    def events(self) -> AsyncGenerator[Event, None]:
        """Tokens, then one Finished."""
        ...


class _EngineAnswer:
    """What raw and chat answers share: the model, how tokens are chosen, the place in the queue.

    `asked` is what else of the request is for the engine.
    """

    def __init__(
        self,
        gateway: Gateway,
        request: RequestInfo,
        model: Model,
        options: Mapping[str, Any],
        json_schema: Any,
        defaults: Mapping[str, Any],
        asked: Mapping[str, Any],
    ) -> None:
        self.gateway = gateway
        self.model = model
        self.sampling = resolve(options, self.model.config.parameters, defaults)
        fields = engine_fields(self.sampling)
        if json_schema is not None:
            fields["json_schema"] = json_schema
        demand = Demand("/completion", {**fields, **asked})
        self.ticket = request.ticket(InstanceKey(self.model.name, "generate"), demand)
        self.generation = Generation(gateway, self.ticket, fields)

    @property
    def phase(self) -> str:
        return self.generation.phase


class RawAnswer(_EngineAnswer):
    """The completion of a prompt as it is, without a chat template."""

    def __init__(
        self,
        gateway: Gateway,
        request: RequestInfo,
        model: Model,
        prompt: str,
        options: Mapping[str, Any],
        json_schema: Any = None,
        defaults: Mapping[str, Any] = DEFAULTS,
    ) -> None:
        asked = {"prompt": prompt}
        super().__init__(gateway, request, model, options, json_schema, defaults, asked)
        self._prompt = prompt
        self.ticket.pieces = of_text(prompt)

    def events(self) -> AsyncGenerator[Event, None]:
        async def make_prompt(instance: Instance) -> str:
            return self._prompt

        return self.generation.events(make_prompt)


class ChatAnswer(_EngineAnswer):
    """The next message of a conversation, which is stored with it unless `store` is false.

    What is not stored goes on from the session `session_id`, if there is one, and belongs to
    none: its text reaches neither the database nor a file, and its slot is nobody's. `style`
    states what the messages are, where the client knows.

    `fields` are others of `/v1/chat/completions`: tools and what goes with them. `thinking`
    switches thoughts on or off; raises InvalidRequest when the model has none, and what
    `chatting_model` raises.
    `streamed`: the client gets every event as it comes, and so has a part of the answer when it
    leaves in the middle.
    """

    def __init__(
        self,
        gateway: Gateway,
        request: RequestInfo,
        sessions: SessionStore,
        owner: str,
        model: Model,
        messages: Sequence[Message],
        session_id: str | None,
        options: Mapping[str, Any],
        json_schema: Any = None,
        fields: Mapping[str, Any] | None = None,
        thinking: bool | None = None,
        defaults: Mapping[str, Any] = DEFAULTS,
        *,
        style: Style | None = None,
        store: bool = True,
        streamed: bool,
        session_timeout_s: float,
    ) -> None:
        self._fields = {**(fields or {}), **_switch(model, thinking)}
        asked = {**self._fields, "session": session_id, "messages": messages}
        super().__init__(gateway, request, model, options, json_schema, defaults, asked)
        self._json_schema = json_schema
        self._engine_turn: EngineTurn | None = None
        self._sessions = sessions
        self._owner = owner
        self._messages = messages
        self._session_id = session_id
        self._style = style
        self._keeps = store
        self._streamed = streamed
        self._session_timeout_s = session_timeout_s

    @property
    def phase(self) -> str:
        return super().phase if self._engine_turn is None else self._engine_turn.phase

    async def events(self) -> AsyncGenerator[Event, None]:
        async with self._opened() as (session, turn):
            if self._keeps:
                self.ticket.session, self.ticket.begins = session.ref, session.stored is None
            self.ticket.pieces = of_messages(self._shown(turn))
            self.ticket.enqueued_at = time.monotonic()
            dropped = 0

            async def make_prompt(instance: Instance, render: Render) -> Prompt:
                nonlocal dropped, turn
                turn = await self._counted(instance, turn)
                prompt = await self._fitted(instance, turn, session.left_out, render)
                dropped = session.left_out = prompt.dropped_messages
                return prompt

            sending, sent, thought = list[str](), list[str](), list[str]()
            try:
                async with aclosing(self._answered(turn, make_prompt)) as events:
                    async for event in events:
                        if isinstance(event, Finished):
                            sent.clear()
                            warning = await self._try_to_store(session, turn, event)
                            session_id = session.ref.id if self._keeps else None
                            event = event.in_session(session_id, dropped, warning)
                        yield event
                        # Whoever asks for the next event has sent this one, but for tokens that
                        # go out together with the next.
                        if self._streamed and isinstance(event, Token):
                            sending.append(event.text)
                            if not event.more:
                                sent += sending
                                sending.clear()
                        elif isinstance(event, Thinking):
                            thought.append(event.text)
            except (GeneratorExit, asyncio.CancelledError):
                if sent:  # the client has seen this much
                    extra = Extra(thinking="".join(thought)) if thought else None
                    answer = Message("assistant", "".join(sent), partial=True, extra=extra)
                    with suppress(MyLLMError):  # which is logged; nobody is there to be told
                        await self._store(session, turn, answer, None)
                raise

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[tuple[Session, Merged], None]:
        """The session, held until the context is left, and what it is with the posted messages.

        One that only is gone on from is let go at once.
        """
        opened = self._sessions.open(self._owner, self._session_id, self._session_timeout_s)
        async with opened as session:
            turn = session.merged(self._messages, self._style)
            if self._keeps:
                yield session, turn
                return
        yield session, turn

    def _shown(self, turn: Merged) -> list[Message]:
        """What the model is to see of the conversation."""
        return turn.prompt()

    async def _try_to_store(self, session: Session, turn: Merged, end: Finished) -> str | None:
        """Keep a turn; where the store cannot write now, the answer is worth more than an error,
        and the reason is returned."""
        try:
            await self._store(session, turn, _answer_of(end), end)
        except (StoreFailed, Unavailable) as failure:
            return f"This turn is not stored. {failure.detail}"
        return None

    async def _store(
        self, session: Session, turn: Merged, answer: Message, end: Finished | None
    ) -> None:
        """Keep a turn; `end` is None when the client left in the middle of it."""
        if self._keeps:
            await self._sessions.save(session, self.model.name, turn, answer)

    def _answered(self, turn: Merged, make_prompt: Fit) -> AsyncGenerator[Event, None]:
        """The answer, by the engine's chat route where text alone would not do."""
        shown = self._shown(turn)
        text_only = not any(message.said() for message in shown)
        if text_only and not self.model.thinks and "tools" not in self._fields:
            return self.generation.events(
                lambda instance: make_prompt(instance, self._plain_render(instance))
            )
        fields = dict(self._fields)
        if self._json_schema is not None:
            fields["json_schema"] = self._json_schema
        self._engine_turn = EngineTurn(
            self.gateway,
            self.ticket,
            self.model,
            self.sampling,
            fields,
            [message.wire() for message in shown],
            make_prompt,
        )
        return self._engine_turn.events()

    async def _fitted(
        self, instance: Instance, turn: Merged, left_out: int, render: Render
    ) -> Prompt:
        size, max_tokens = instance.spec.context_size, self.sampling["max_tokens"]
        return await fit(self._shown(turn), left_out, size, max_tokens, render)

    def _plain_render(self, instance: Instance) -> Render:
        async def render(wire: list[dict[str, Any]]) -> Prompt:
            begun = ""
            if wire[-1]["role"] == "assistant" and not self.model.chat.leaves_answers_open:
                *wire, last = wire
                begun = last["content"]
            text = await calls.apply_template(instance, {"messages": wire}) + begun
            conversations = self.gateway.conversations
            return Prompt(text, await conversations.tokens(instance, self.ticket, text))

        return render

    async def _counted(self, instance: Instance, turn: Merged) -> Merged:
        """`turn` with the tokens of its last new messages, which are stored with them."""
        *more, last = turn.new or (None,)
        if last is None or last.tokens is not None:
            return turn
        tokens = await self.gateway.counts.count(instance, last.content)
        return replace(turn, new=(*more, replace(last, tokens=tokens)))


def _answer_of(end: Finished) -> Message:
    """A whole answer, to be stored; calls that were cut would be no use to any later prompt."""
    extra = Extra()
    if end.thinking:
        extra["thinking"] = end.thinking
    if calls := [call for call in end.calls if _is_whole(call)]:
        extra["tool_calls"] = wire_calls(calls)
    tokens = end.usage.completion_tokens
    return Message("assistant", end.full_text, tokens=tokens, extra=extra or None)


def _is_whole(call: Call) -> bool:
    try:
        return isinstance(orjson.loads(call.arguments), dict)
    except orjson.JSONDecodeError:
        return False


def _switch(model: Model, thinking: bool | None) -> dict[str, Any]:
    """What tells an engine to think or not to; nothing of a model that cannot."""
    if thinking and not model.thinks:
        raise InvalidRequest(
            f"Model '{model.name}' does not think; leave thinking out, or send false"
        )
    if thinking is None or not model.thinks:
        return {}
    kwargs = {"chat_template_kwargs": {"enable_thinking": thinking}}
    return kwargs if thinking else kwargs | {"reasoning_effort": "none"}


async def generating_model(gateway: Gateway, name: str) -> Model:
    """The model called `name`; raises InvalidRequest when it cannot generate."""
    return await model_for(gateway, name, "generate")
