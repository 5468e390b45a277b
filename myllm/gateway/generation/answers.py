"""One request's answer, from the queue to the last token.

An answer is an asynchronous generator of events, so that its cleanup (the upstream connection is
closed, then the slot released) runs in one place. The caller must close the generator on every way
out (`contextlib.aclosing`): a client can leave while an event is being sent, and then nothing else
would close it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from typing import Any, Protocol, cast

import orjson

from myllm.errors import MyLLMError, StoreFailed, Unavailable
from myllm.gateway.conversation.messages import ChatMessage
from myllm.gateway.gateway import Gateway
from myllm.gateway.generation.chat_job import ChatJob
from myllm.gateway.generation.chat_route import EngineChat, chat_body, wire_calls
from myllm.gateway.generation.completion import Generation
from myllm.gateway.generation.events import Call, Event, Finished, Thinking, Token
from myllm.gateway.generation.prompt_builder import PromptBuilder
from myllm.gateway.generation.sampling import DEFAULTS, completion_fields, resolve
from myllm.gateway.model_lookup import model_for
from myllm.gateway.prompt.prefixes import pieces_of_messages, pieces_of_text
from myllm.gateway.scheduling.demand import Demand
from myllm.gateway.scheduling.tickets import RequestInfo
from myllm.models.registry import Model
from myllm.sessions.history import Extra, Merged, Message
from myllm.sessions.session import Session
from myllm.sessions.store import SessionStore
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey


class Answer(Protocol):
    """What a dialect needs of an answer."""

    @property
    def phase(self) -> str:
        """What the answer is waiting for, in few words, for people who watch the stream."""
        ...

    def events(self) -> AsyncGenerator[Event, None]:
        """Tokens, then one Finished."""
        ...


class RawAnswer:
    """The completion of a prompt as it is, without a chat template.

    `options` are sampler values under our names. They precede the model's own, and those precede
    `defaults`, which are the dialect's.
    """

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
        sampling = resolve(options, model.config.parameters, defaults)
        fields = completion_fields(sampling, json_schema)
        demand = Demand("/completion", {**fields, "prompt": prompt})
        self.ticket = request.ticket(InstanceKey(model.name, "generate"), demand)
        self.ticket.pieces = pieces_of_text(prompt)

        async def build_prompt(instance: Instance) -> str:
            return prompt

        self._generation = Generation(gateway, self.ticket, fields, build_prompt)

    @property
    def phase(self) -> str:
        """What the answer is waiting for, in few words."""
        return self._generation.phase

    def events(self) -> AsyncGenerator[Event, None]:
        """Tokens, then one Finished."""
        return self._generation.events()


class ChatAnswer:
    """The next message of a conversation, which is stored with it unless the turn says otherwise.

    Raises InvalidRequest if `job` wants what its model cannot do. `streamed`: the client gets every
    event as it comes, and so has a part of the answer when it leaves in the middle.
    `session_timeout_s` bounds the wait for a session that another request has.
    """

    def __init__(
        self,
        gateway: Gateway,
        sessions: SessionStore,
        request: RequestInfo,
        job: ChatJob,
        *,
        streamed: bool,
        session_timeout_s: float,
    ) -> None:
        self._gateway = gateway
        self._sessions = sessions
        self._job = job
        self._streamed = streamed
        self._session_timeout_s = session_timeout_s
        self._sampling = resolve(job.options, job.model.config.parameters, job.defaults)
        self._fields = completion_fields(self._sampling, job.json_schema)
        self._chat_fields = job.chat_fields()
        self._source: Generation | EngineChat | None = None  # once the session is opened
        demand = {
            **self._fields,
            **self._chat_fields,
            "session": job.turn.session_id,
            "messages": job.turn.messages,
        }
        self.ticket = request.ticket(
            InstanceKey(job.model.name, "generate"), Demand("/completion", demand)
        )

    @property
    def phase(self) -> str:
        """What the answer is waiting for, in few words."""
        return self._source.phase if self._source else self._gateway.phase(self.ticket)

    async def events(self) -> AsyncGenerator[Event, None]:
        """Tokens, thoughts and calls as they come, then one Finished."""
        async with self._job.turn.opened(self._open_session) as (session, conversation):
            prompts = self._enqueue(session, conversation)
            sending, sent, thought = list[str](), list[str](), list[str]()
            try:
                async with aclosing(self._generated(prompts)) as events:
                    async for event in events:
                        if isinstance(event, Finished):
                            sent.clear()
                            event = await self._finish(session, prompts, event)
                        yield event
                        # The caller has sent this event when it asks for the next one, except for
                        # tokens that go out together with the next.
                        if self._streamed and isinstance(event, Token):
                            sending.append(event.text)
                            if not event.more:
                                sent += sending
                                sending.clear()
                        elif isinstance(event, Thinking):
                            thought.append(event.text)
            except (GeneratorExit, asyncio.CancelledError):
                if sent:
                    extra = Extra(thinking="".join(thought)) if thought else None
                    answer = Message("assistant", "".join(sent), partial=True, extra=extra)
                    with suppress(MyLLMError):  # the store has logged it, and the client has left
                        await self._store(session, prompts, answer, None)
                raise

    def _open_session(self, session_id: str | None) -> AbstractAsyncContextManager[Session]:
        owner = self.ticket.request.client.owner
        return self._sessions.open(owner, session_id, self._session_timeout_s)

    def _enqueue(self, session: Session, conversation: Merged) -> PromptBuilder:
        """Begin the wait for a slot, and return what will build the prompt in it."""
        messages = self._job.turn.visible(conversation)
        if self._job.turn.stores:
            self.ticket.session, self.ticket.begins = session.ref, session.stored is None
        self.ticket.pieces = pieces_of_messages(messages)
        self.ticket.enqueued_at = time.monotonic()
        return PromptBuilder(
            self._gateway,
            self.ticket,
            conversation,
            messages,
            session.left_out if self._job.turn.truncates else None,
            self._sampling["max_tokens"],
            self._chat_route_fields(messages),
        )

    def _chat_route_fields(self, messages: Sequence[Message]) -> dict[str, Any] | None:
        """Return the fields for the engine's chat route, or None if `/completion` will do: it can
        resume anywhere, but knows no tools, thoughts and pictures."""
        text_only = not any(message.extra_fields() for message in messages)
        if text_only and not self._job.model.thinks and "tools" not in self._chat_fields:
            return None
        schema = self._job.json_schema
        return self._chat_fields | ({} if schema is None else {"json_schema": schema})

    def _generated(self, prompts: PromptBuilder) -> AsyncGenerator[Event, None]:
        if prompts.chat_fields is None:
            self._source = Generation(self._gateway, self.ticket, self._fields, prompts.build)
            return self._source.events()
        wire = [cast(ChatMessage, message.wire()) for message in prompts.messages]
        body = chat_body(wire, self._sampling, prompts.chat_fields)
        self._source = EngineChat(self._gateway, self.ticket, body, prompts)
        return self._source.events()

    async def _finish(self, session: Session, prompts: PromptBuilder, end: Finished) -> Finished:
        """Store the turn, and return `end` with what the client is to know of that.

        If the store cannot write now, the answer is worth more than an error, so it gets a warning.
        """
        warning = None
        try:
            await self._store(session, prompts, _answer_of(end), end)
        except (StoreFailed, Unavailable) as failure:
            warning = f"This turn is not stored. {failure.detail}"
        session_id = session.ref.id if self._job.turn.stores else None
        return end.in_session(session_id, prompts.left_out, warning)

    async def _store(
        self, session: Session, prompts: PromptBuilder, answer: Message, end: Finished | None
    ) -> None:
        """Store the turn, unless it is not to be; `end` is None if the client left before it."""
        turn = self._job.turn
        answer = turn.complete(answer, end)
        if turn.stores:
            session.left_out = prompts.left_out
            await self._sessions.save(session, self._job.model.name, prompts.conversation, answer)


def _answer_of(end: Finished) -> Message:
    """Convert a whole answer to a message, without tool calls that were cut: no later prompt could
    use them."""
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


async def generating_model(gateway: Gateway, name: str) -> Model:
    """Return the model called `name`.

    Raises ModelNotFound, and InvalidRequest if the model cannot generate.
    """
    return await model_for(gateway, name, "generate")
