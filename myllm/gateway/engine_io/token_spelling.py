"""Tokenize a text in the middle of an answer or of a prompt."""

from __future__ import annotations

from collections.abc import Sequence

from myllm.gateway.engine_io import calls
from myllm.supervisor.instance import Instance
from myllm.threads import in_thread_if

# Characters whose tokens are gone through in a millisecond.
_AT_ONCE = 2**15


async def spell(instance: Instance, text: str) -> list[int]:
    """Return the tokens of `text` as the engine's tokenizer chooses them.

    Many tokenizers put a space before every text. The space is left out if it is a token of its
    own; otherwise the text is tokenized after a line break, which keeps the space away.
    """
    plain = await calls.spellings(instance, text)
    ids = last_that_spell(plain, text.encode())
    if ids is None:
        after_break = await calls.spellings(instance, "\n" + text)
        ids = last_that_spell(after_break, text.encode())
    return [token for token, _ in plain] if ids is None else ids


async def spell_prompt(instance: Instance, text: str) -> list[int] | None:
    """Return the tokens of `text`, the rest of a rendered prompt.

    Returns None if no token boundary lies before the text.
    """
    for before in ("", "\n"):
        tokens = await calls.spellings(instance, before + text, parse_special=True)
        ids = await in_thread_if(len(text) > _AT_ONCE, last_that_spell, tokens, text.encode())
        if ids is not None:
            return ids
    return None


def last_that_spell(tokens: Sequence[tuple[int, bytes]], text: bytes) -> list[int] | None:
    """Return the last of `tokens`, which come with their bytes, that spell `text`.

    Returns None if no token boundary lies before the text.
    """
    size = 0
    for count, (_, piece) in enumerate(reversed(tokens), start=1):
        size += len(piece)
        if size >= len(text):
            last = tokens[-count:]
            spelled = b"".join([piece for _, piece in last])
            return [token for token, _ in last] if spelled == text else None
    return None
