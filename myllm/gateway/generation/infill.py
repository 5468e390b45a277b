"""Text between two texts as an answer, for models with tokens for that."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from myllm.errors import EngineError
from myllm.gateway.engine_io.sse import events_in
from myllm.gateway.gateway import Gateway
from myllm.gateway.generation.events import Event, Finished, Token
from myllm.gateway.generation.relay import Relay
from myllm.gateway.generation.sampling import completion_fields, resolve
from myllm.gateway.generation.text_relays import INFILL
from myllm.gateway.scheduling.demand import Demand
from myllm.gateway.scheduling.tickets import RequestInfo
from myllm.gateway.usage import plain_usage
from myllm.models.registry import Model
from myllm.supervisor.spec import InstanceKey


class InfillAnswer:
    """What a model writes between `prefix` and `suffix`; the engine refuses models that cannot.

    `options` are sampler values under our names. They precede the model's own, and those precede
    `defaults`, which are the dialect's.
    """

    def __init__(
        self,
        gateway: Gateway,
        request: RequestInfo,
        model: Model,
        texts: tuple[str, str],
        options: Mapping[str, Any],
        json_schema: Any,
        defaults: Mapping[str, Any],
    ) -> None:
        sampling = resolve(options, model.config.parameters, defaults)
        prefix, suffix = texts
        body = completion_fields(sampling, json_schema)
        body |= {"input_prefix": prefix, "input_suffix": suffix}
        self.ticket = request.ticket(InstanceKey(model.name, "generate"), Demand(INFILL, body))
        self._relay = Relay(gateway, self.ticket, INFILL, body)

    @property
    def phase(self) -> str:
        """What the answer is waiting for, in few words."""
        return self._relay.phase

    async def events(self) -> AsyncGenerator[Event, None]:
        """Tokens, then one Finished."""
        texts: list[str] = []
        async with aclosing(self._relay.blocks()) as blocks:
            async for block in blocks:
                for each in events_in(block):
                    if text := each.get("content"):
                        texts.append(text)
                        yield Token(text)
                    if each.get("stop"):
                        yield _finished("".join(texts), each)
                        return
        raise EngineError("The engine ended the answer without finishing it")


def _finished(text: str, last: Mapping[str, Any]) -> Finished:
    ended = last.get("stop_type")
    stop_text = last.get("stopping_word") if ended == "word" else None
    return Finished(
        text,
        plain_usage(last),
        "length" if ended == "limit" else "stop",
        stop_text=stop_text,
    )
