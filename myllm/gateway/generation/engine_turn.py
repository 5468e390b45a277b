"""A turn of a stored conversation through the engine's own chat route.

What is more than text goes this way: tools, pictures, thoughts. The history is made to fit as
it is for plain text, counted with everything that the template looks at. The engine renders the
prompt itself, so a slot is said to hold what the prompt was, and not the answer behind it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

from myllm.gateway.engine_io import calls
from myllm.gateway.gateway import Gateway
from myllm.gateway.generation.chat_route import EngineChat, Wire
from myllm.gateway.generation.events import Event
from myllm.gateway.prompt.fit import Prompt, Render
from myllm.gateway.scheduling.tickets import Ticket
from myllm.models.registry import Model
from myllm.sessions.kv_states import Remembered
from myllm.supervisor.instance import Instance

Fit = Callable[[Instance, Render], Awaitable[Prompt]]
"""The newest messages that fit, as they are rendered."""


class EngineTurn:
    """The answer to `messages`, of which `fit` chooses once an engine is there.

    `sampling` has every sampler value under our names, `fields` are others of
    `/v1/chat/completions`.
    """

    def __init__(
        self,
        gateway: Gateway,
        ticket: Ticket,
        model: Model,
        sampling: Mapping[str, Any],
        fields: Mapping[str, Any],
        messages: Wire,
        fit: Fit,
    ) -> None:
        self._conversations = gateway.conversations
        self._ticket = ticket
        self._fields = fields
        self._fit = fit
        self._prompt: Prompt | None = None
        self._chat = EngineChat(
            gateway, ticket, model, messages, sampling, {}, fields, self._prepare, self._ended
        )

    @property
    def phase(self) -> str:
        """What it is waiting for, in few words."""
        return self._chat.phase

    def events(self) -> AsyncGenerator[Event, None]:
        """Tokens, thoughts and calls as they come, then one Finished."""
        return self._chat.events()

    async def _prepare(self, instance: Instance) -> Wire:
        async def render(wire: Wire) -> Prompt:
            body = {**self._fields, "messages": wire}
            if _has_media(wire):
                count = await calls.count_chat(instance, body)
                return Prompt("", [], wire=wire, other_tokens=count)
            text = await calls.apply_template(instance, body)
            return Prompt(text, await calls.tokenize(instance, text), wire=wire)

        self._prompt = await self._fit(instance, render)
        self._conversations.unknown(instance, self._ticket)
        return self._prompt.wire

    def _ended(self, instance: Instance, answer: str) -> None:
        prompt = self._prompt
        if prompt is not None and prompt.tokens:
            remembered = Remembered.of(prompt.text, tuple(prompt.tokens))
            self._conversations.note(instance, self._ticket, remembered, answer, 0)


def _has_media(wire: Wire) -> bool:
    return any(isinstance(message.get("content"), list) for message in wire)
