"""Tokens for a text in the middle of an answer, from tokenizers that begin it with a space."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from myllm.engine.engine import Engine
from myllm.gateway.engine_io import calls
from myllm.gateway.engine_io.token_spelling import last_that_spell, spell
from myllm.gateway.gateway import Gateway
from myllm.gateway.scheduling.tickets import Ticket
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey
from tests.gateway.generation.cutting import running
from tests.ggufs import write_model

WORDS = ["▁", "H", "Hi", "▁H", "▁Hi", "i"]
TEXTS = ["🙂", "日本", "Hi", " Hi", "Hi🙂 Hi", " 🙂", "\n", "i\nHi"]


def test_the_last_tokens_that_spell_a_text() -> None:
    tokens = [(7, b" "), (8, b"\xf0\x9f"), (9, b"\x99\x82")]
    assert last_that_spell(tokens, "🙂".encode()) == [8, 9]
    assert last_that_spell(tokens, " 🙂".encode()) == [7, 8, 9]
    assert last_that_spell([(3, b" Hi")], b"Hi") is None
    assert last_that_spell([(3, b"i")], b"Hi") is None


async def spelled(gateway: Gateway, instance: Instance) -> dict[str, bytes]:
    """What the chosen tokens spell, by the text that they were chosen for."""
    made = {}
    for text in TEXTS:
        tokens = await calls.spellings(instance, await spell(instance, text))
        made[text] = b"".join(piece for _, piece in tokens)
    return made


@pytest.mark.parametrize("model", ["words", "demo"])
async def test_what_is_spelled_is_the_text(engine: Engine, home: Path, model: str) -> None:
    write_model(home / "models/words/m.gguf", words=WORDS)
    async with (
        running(engine, home) as gateway,
        gateway.lease(Ticket(InstanceKey(model, "generate"), time.monotonic())) as lease,
    ):
        assert await spelled(gateway, lease.instance) == {text: text.encode() for text in TEXTS}
        if model == "words":
            [(_, piece)] = await calls.spellings(lease.instance, "Hi")
            assert piece == b" Hi", "this tokenizer begins every text with a space"
