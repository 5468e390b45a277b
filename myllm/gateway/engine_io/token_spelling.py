"""Which tokens spell a text that stands in the middle of an answer."""

from __future__ import annotations

from collections.abc import Sequence

from myllm.gateway.engine_io import calls
from myllm.supervisor.instance import Instance


async def spell(instance: Instance, text: str) -> list[int]:
    """The tokens of `text` as the engine's tokenizer would choose them.

    Many tokenizers put a space before every text. It is left out if it is a token of its own;
    if not, a line break before the text keeps it away.
    """
    plain = await calls.spellings(instance, text)
    ids = last_that_spell(plain, text.encode())
    if ids is None:
        after_break = await calls.spellings(instance, "\n" + text)
        ids = last_that_spell(after_break, text.encode())
    return [token for token, _ in plain] if ids is None else ids


async def spell_prompt(instance: Instance, text: str) -> list[int] | None:
    """The tokens of `text`, the rest of a rendered prompt; None when it does not part there."""
    for before in ("", "\n"):
        tokens = await calls.spellings(instance, before + text, parse_special=True)
        ids = last_that_spell(tokens, text.encode())
        if ids is not None:
            return ids
    return None


def last_that_spell(tokens: Sequence[tuple[int, bytes]], text: bytes) -> list[int] | None:
    """The last of `tokens` (with their bytes) that spell `text`; None if they do not part there."""
    spelled = b""
    for count, (_, piece) in enumerate(reversed(tokens), start=1):
        spelled = piece + spelled
        if len(spelled) >= len(text):
            return [token for token, _ in tokens[-count:]] if spelled == text else None
    return None
