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
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, Protocol

from myllm.errors import MyLLMError
from myllm.gateway import upstream
from myllm.gateway.events import Event, Finished, Token
from myllm.gateway.gateway import Gateway
from myllm.gateway.prefixes import of_messages, of_text
from myllm.gateway.prompting import Prompt, fit
from myllm.gateway.resume import Generation
from myllm.gateway.roles import model_for
from myllm.gateway.sampling import DEFAULTS, engine_fields, resolve
from myllm.gateway.tickets import Asking
from myllm.models.registry import Model
from myllm.models.templates import leaves_answers_open
from myllm.sessions.history import Merged, Message
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
    """What raw and chat answers share: the model, how tokens are chosen, the place in the queue."""

    def __init__(
        self,
        gateway: Gateway,
        asking: Asking,
        model_name: str,
        options: Mapping[str, Any],
        json_schema: Any,
        defaults: Mapping[str, Any] = DEFAULTS,
    ) -> None:
        self.gateway = gateway
        self.model = generating_model(gateway, model_name)
        self.sampling = resolve(options, self.model.parameters, defaults)
        self.ticket = asking.ticket(InstanceKey(self.model.name, "generate"))
        fields = engine_fields(self.sampling)
        if json_schema is not None:
            fields["json_schema"] = json_schema
        self.generation = Generation(gateway, self.ticket, fields)

    @property
    def phase(self) -> str:
        return self.generation.phase


class RawAnswer(_EngineAnswer):
    """The completion of a prompt as it is, without a chat template."""

    def __init__(
        self,
        gateway: Gateway,
        asking: Asking,
        model_name: str,
        prompt: str,
        options: Mapping[str, Any],
        json_schema: Any = None,
        defaults: Mapping[str, Any] = DEFAULTS,
    ) -> None:
        super().__init__(gateway, asking, model_name, options, json_schema, defaults)
        self._prompt = prompt
        self.ticket.pieces = of_text(prompt)

    def events(self) -> AsyncGenerator[Event, None]:
        async def make_prompt(instance: Instance) -> str:
            return self._prompt

        return self.generation.events(make_prompt)


class ChatAnswer(_EngineAnswer):
    """The next message of a conversation, which is stored with it.

    `streamed`: the client gets every event as it comes, and so has a part of the answer when it
    leaves in the middle.
    """

    def __init__(
        self,
        gateway: Gateway,
        asking: Asking,
        sessions: SessionStore,
        owner: str,
        model_name: str,
        messages: Sequence[Message],
        session_id: str | None,
        options: dict[str, Any],
        json_schema: Any = None,
        *,
        streamed: bool,
        session_timeout_s: float,
    ) -> None:
        super().__init__(gateway, asking, model_name, options, json_schema)
        self._sessions = sessions
        self._owner = owner
        self._messages = messages
        self._session_id = session_id
        self._streamed = streamed
        self._session_timeout_s = session_timeout_s

    async def events(self) -> AsyncGenerator[Event, None]:
        opened = self._sessions.open(self._owner, self._session_id, self._session_timeout_s)
        async with opened as session:
            turn = session.merged(self._messages)
            self.ticket.session = session.key
            self.ticket.pieces = of_messages(turn.prompt())
            self.ticket.enqueued_at = time.monotonic()
            dropped = 0

            async def make_prompt(instance: Instance) -> Prompt:
                nonlocal dropped, turn
                turn = await self._counted(instance, turn)
                prompt = await self._prompt(instance, turn.prompt(), session.left_out)
                dropped = session.left_out = prompt.dropped_messages
                return prompt

            sent: list[str] = []
            try:
                async with aclosing(self.generation.events(make_prompt)) as events:
                    async for event in events:
                        if isinstance(event, Finished):
                            sent.clear()
                            tokens = event.usage.completion_tokens
                            answer = Message("assistant", event.full_text, tokens=tokens)
                            await self._sessions.save(session, self.model.name, turn, answer)
                            event = event.in_session(session.id, dropped)
                        yield event
                        # Whoever asks for the next event has sent this one.
                        if self._streamed and isinstance(event, Token):
                            sent.append(event.text)
            except (GeneratorExit, asyncio.CancelledError):
                if sent:  # the client has seen this much
                    answer = Message("assistant", "".join(sent), partial=True)
                    with suppress(MyLLMError):  # which is logged; nobody is there to be told
                        await self._sessions.save(session, self.model.name, turn, answer)
                raise

    async def _prompt(
        self, instance: Instance, messages: Sequence[Message], left_out: int
    ) -> Prompt:
        async def render(wire: list[dict[str, str]]) -> Prompt:
            begun = ""
            if wire[-1]["role"] == "assistant" and not leaves_answers_open(self.model):
                *wire, last = wire
                begun = last["content"]
            text = await upstream.apply_template(instance, {"messages": wire}) + begun
            conversations = self.gateway.conversations
            return Prompt(text, await conversations.tokens(instance, self.ticket, text))

        size, max_tokens = instance.spec.context_size, self.sampling["max_tokens"]
        return await fit(messages, left_out, size, max_tokens, render)

    async def _counted(self, instance: Instance, turn: Merged) -> Merged:
        """`turn` with the tokens of its last new messages, which are stored with them."""
        *more, last = turn.new or (None,)
        if last is None or last.tokens is not None:
            return turn
        tokens = await self.gateway.counts.count(instance, last.content)
        return replace(turn, new=(*more, replace(last, tokens=tokens)))


def generating_model(gateway: Gateway, name: str) -> Model:
    """The model called `name`; raises InvalidRequest when it cannot generate."""
    return model_for(gateway, name, "generate")
