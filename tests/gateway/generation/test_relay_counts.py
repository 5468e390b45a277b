"""The counts of an answer that is passed on unread, also when little of it is kept."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from myllm.engine.engine import Engine
from myllm.gateway.generation.relay import CHAT, Relay
from myllm.gateway.scheduling.tickets import RequestInfo, Ticket
from myllm.supervisor.spec import InstanceKey
from tests.gateway.generation.cutting import running

KEY = InstanceKey("demo", "generate")
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "Count to one hundred."}]},
    "/v1/completions": {"prompt": "Count to one"},
    "/completion": {"prompt": "Count to one", "n_predict": 90, "ignore_eos": True},
}


async def test_what_is_added_up_early_does_not_lose_the_end(
    engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = {"temperature": 0, "seed": 1, "max_tokens": 90}
    async with running(engine, home) as gateway:

        async def answered(path: str, left_after: int | None = None) -> Ticket:
            ticket, blocks = RequestInfo().ticket(KEY), 0
            relay = Relay(gateway, ticket, path, BODIES[path] | fixed)
            async with aclosing(relay.blocks()) as answer:
                async for _ in answer:
                    blocks += 1
                    if blocks == left_after:
                        break
            return ticket

        for path in BODIES:
            whole = await answered(path)
            monkeypatch.setattr("myllm.gateway.generation.relay._MAX_KEPT", 100)
            again, cut = await answered(path), await answered(path, 5)
            monkeypatch.undo()
            assert whole.usage is not None
            assert again.usage is not None
            assert cut.usage is not None
            counts = (whole.usage.prompt_tokens, whole.usage.completion_tokens)
            assert counts == (again.usage.prompt_tokens, again.usage.completion_tokens)
            assert whole.usage.completion_tokens > 50
            assert again.finish_reason == whole.finish_reason is not None
            assert 4 <= cut.usage.completion_tokens < whole.usage.completion_tokens
            assert cut.usage.prompt_tokens > 0
            assert cut.finish_reason is None
