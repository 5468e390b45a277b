"""Builds the prompt of a chat, once an engine is there to render it and to count its tokens.

The newest turns that fit are rendered by the model's own template (`prompt/fit.py` chooses them).
For `/completion` the prompt is sent as tokens, which begin with those that the slot has read. The
engine's chat route renders the messages again itself, so that it gets the messages that fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from myllm.errors import PromptTooLong
from myllm.gateway.conversation.messages import Messages
from myllm.gateway.engine_io import calls
from myllm.gateway.gateway import Gateway
from myllm.gateway.generation.sampling import UNBOUNDED
from myllm.gateway.prompt.fit import Prompt, fit
from myllm.gateway.prompt.too_long import too_long
from myllm.gateway.scheduling.tickets import Ticket
from myllm.sessions.history import Merged, Message
from myllm.supervisor.instance import Instance


class PromptBuilder:
    """Builds the prompt of one answer, again for each engine with another tokenizer.

    `conversation` is what is stored with the answer, and `messages` are what the model may see of
    it. `left_out` says how many messages the latest prompt left out; None, at first, forbids to
    leave out any. `chat_fields` are the fields of the engine's chat route that a template looks at,
    such as `tools`; None for `/completion`.
    """

    def __init__(
        self,
        gateway: Gateway,
        ticket: Ticket,
        conversation: Merged,
        messages: Sequence[Message],
        left_out: int | None,
        max_tokens: int,
        chat_fields: Mapping[str, Any] | None,
    ) -> None:
        self.conversation = conversation
        self.left_out = left_out or 0
        self._truncates = left_out is not None
        self._gateway = gateway
        self._ticket = ticket
        self.messages = messages
        self._max_tokens = max_tokens
        self.chat_fields = chat_fields

    async def build(self, instance: Instance) -> Prompt:
        """Render the newest turns that fit the context of `instance`.

        Afterwards `left_out` is how many messages did not fit, and the last new message of
        `conversation` knows how many tokens it has. Raises PromptTooLong, InvalidRequest when the
        template refuses the messages, what `Ticket.count_tokens` raises, and the engine's own
        errors.
        """
        await self._count_last_message(instance)
        size = instance.spec.context_size
        render = partial(
            self._render_text if self.chat_fields is None else self._render_chat, instance
        )
        try:
            left_out = self.left_out if self._truncates else None
            prompt = await fit(self.messages, left_out, size, self._max_tokens, render)
        except PromptTooLong as refusal:
            raise too_long(instance.spec, refusal.prompt_tokens) from None
        self.left_out = prompt.dropped_messages
        if self._ticket.request.record is not None:
            self._ticket.request.record.left_out = self.left_out
        longest = self._max_tokens if self._max_tokens < UNBOUNDED else 0
        self._ticket.count_tokens(prompt.size, min(longest, size - prompt.size))
        return prompt

    async def _count_last_message(self, instance: Instance) -> None:
        """The count is stored with the message, and only an engine can make it."""
        *more, last = self.conversation.new or (None,)
        if last is not None and last.tokens is None:
            tokens = await self._gateway.counts.count(instance, last.content)
            counted = replace(last, tokens=tokens)
            self.conversation = replace(self.conversation, new=(*more, counted))

    async def _fitted(self, instance: Instance, wire: Messages) -> Messages:
        ignored = self._ticket.request.ignored
        return await self._gateway.templates.fitted(instance, wire, ignored)

    async def _render_text(self, instance: Instance, wire: Messages) -> Prompt:
        """Render for `/completion`."""
        wire = await self._fitted(instance, wire)
        begun = ""
        if wire[-1]["role"] == "assistant" and not instance.spec.model.chat.leaves_answers_open:
            *wire, last = wire
            begun = str(last["content"])
        text = await calls.apply_template(instance, {"messages": wire}) + begun
        tokens = await self._gateway.slot_cache.tokens(instance, self._ticket, text)
        return Prompt(text, tokens.ids, other_tokens=tokens.count - len(tokens.ids))

    async def _render_chat(self, instance: Instance, wire: Messages) -> Prompt:
        """Render as the engine's chat route does. Pictures and sounds have no text, so a prompt
        with any is only counted."""
        wire = await self._fitted(instance, wire)
        body = {**(self.chat_fields or {}), "messages": wire}
        if any(isinstance(message.get("content"), list) for message in wire):
            return Prompt("", [], wire=wire, other_tokens=await calls.count_chat(instance, body))
        text = await calls.apply_template(instance, body)
        tokens = await calls.tokenize(instance, text, instance.spec.context_size)
        other_tokens = tokens.count - len(tokens.ids)
        return Prompt(text, tokens.ids, wire=wire, other_tokens=other_tokens)
