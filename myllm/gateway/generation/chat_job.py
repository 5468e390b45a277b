"""What a chat request asks of a model, before an engine is there to answer it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from myllm.errors import InvalidRequest
from myllm.gateway.generation.events import Finished
from myllm.gateway.generation.sampling import DEFAULTS
from myllm.models.registry import Model
from myllm.sessions.history import Merged, Message, Style
from myllm.sessions.session import Session

OpenSession = Callable[[str | None], AbstractAsyncContextManager[Session]]
"""Opens the client's session with this id, or a new one. No other request gets it until the context
is left."""


class Turn(Protocol):
    """What a request adds to a conversation."""

    @property
    def messages(self) -> Sequence[Message]:
        """The messages that the client posted."""
        ...

    @property
    def session_id(self) -> str | None:
        """The session that the client named."""
        ...

    @property
    def stores(self) -> bool:
        """Whether the conversation is stored with its answer."""
        ...

    @property
    def truncates(self) -> bool:
        """Whether the oldest turns may be left out of a prompt that is too long."""
        ...

    def opened(
        self, open_session: OpenSession
    ) -> AbstractAsyncContextManager[tuple[Session, Merged]]:
        """Return the session, and the conversation with the new messages.

        The session is held until the context is left, if it is going to be changed. Raises what
        opening a session raises, and InvalidRequest when no message is left to be answered.
        """
        ...

    def visible(self, conversation: Merged) -> list[Message]:
        """Return what the model may see of the conversation."""
        ...

    def complete(self, answer: Message, end: Finished | None) -> Message:
        """Note how the answer ended, and return it as it is stored, if it is.

        `end` is None if the client left before the end.
        """
        ...


@dataclass(frozen=True)
class SessionTurn:
    """Messages for the session `session_id`; for a new one, if that is None or not known yet.

    `style` says what the messages are, if the client does. What is not stored continues the
    session, if there is one, without changing it: its text reaches neither the database nor a
    file, and its slot belongs to no session.
    """

    messages: Sequence[Message]
    session_id: str | None = None
    style: Style | None = None
    stores: bool = True
    truncates: ClassVar[bool] = True

    @asynccontextmanager
    async def opened(
        self, open_session: OpenSession
    ) -> AsyncGenerator[tuple[Session, Merged], None]:
        async with open_session(self.session_id) as session:
            conversation = session.merged(self.messages, self.style)
            if self.stores:
                yield session, conversation
                return
        yield session, conversation

    def visible(self, conversation: Merged) -> list[Message]:
        return conversation.prompt()

    def complete(self, answer: Message, end: Finished | None) -> Message:
        return answer


@dataclass(frozen=True)
class ChatJob:
    """The next message of a conversation, as a client asks for it.

    `options` are sampler values under our names. They precede the model's own, and those precede
    `defaults`, which are the dialect's. `fields` are other fields of `/v1/chat/completions`:
    `tools`, `tool_choice`, `reasoning_effort`. `thinking` switches thinking on or off; None leaves
    it to the model. `json_schema` is the format of the answer; None allows any text.
    """

    model: Model
    turn: Turn
    options: Mapping[str, Any]
    fields: Mapping[str, Any] = field(default_factory=dict)
    thinking: bool | None = None
    json_schema: Any = None
    defaults: Mapping[str, Any] = field(default_factory=lambda: DEFAULTS)

    def chat_fields(self) -> dict[str, Any]:
        """Return `fields`, and those that switch thinking on or off.

        Raises InvalidRequest if a model is to think that cannot.
        """
        model = self.model
        if self.thinking and not model.thinks:
            raise InvalidRequest(
                f"Model '{model.name}' does not think; leave thinking out, or send false"
            )
        if self.thinking is None or not model.thinks:
            return dict(self.fields)
        switched = {**self.fields, "chat_template_kwargs": {"enable_thinking": self.thinking}}
        return switched if self.thinking else switched | {"reasoning_effort": "none"}
