"""Short hashes of the pieces of a prompt, which show how far two prompts are the same.

A piece is a message, or 256 characters of a raw prompt, written as `hash:characters`. Prompts
whose first pieces are equal begin alike, so an engine that has read one of them has read that
much of the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from myllm.sessions.history import Message

Pieces = tuple[str, ...]
_BLOCK_CHARS: Final = 256
_MAX_BLOCKS: Final = 4096  # more than any context holds
_MAX_MESSAGES: Final = 2048
_LONG: Final = 1 << 16
_HASH_BYTES: Final = 8


def pieces_of_messages(messages: Iterable[Message]) -> Pieces:
    """Return the pieces of a conversation, of its first messages if there are very many."""
    first = islice(messages, _MAX_MESSAGES)
    texts = ((each.role, _text_of([each.content, each.extra_fields()])) for each in first)
    return tuple(_piece(f"{role}\0{text}", len(text)) for role, text in texts)


def pieces_of_wire(messages: Iterable[Mapping[str, Any]]) -> Pieces:
    """Return the pieces of a conversation in OpenAI's form, whatever its messages contain;
    of its first messages if there are very many."""
    first = islice(messages, _MAX_MESSAGES)
    texts = ((str(each.get("role")), _text_of(each.get("content"))) for each in first)
    return tuple(_piece(f"{role}\0{text}", len(text)) for role, text in texts)


def _text_of(content: Any) -> str:
    """Return all of `content` as one text; of a long text (a picture, a book) its beginning and its
    length."""
    if isinstance(content, str):
        return content if len(content) <= _LONG else f"{content[:_LONG]}{len(content)}"
    if isinstance(content, Mapping):
        return "".join(f"{name}{_text_of(value)}\n" for name, value in content.items())
    if isinstance(content, list):
        return "".join(f"{_text_of(part)}\n" for part in content)
    return str(content)


def pieces_of_text(text: str) -> Pieces:
    """Return the pieces of a raw prompt, without a last one that is not full: it would differ
    from the same place in a longer text."""
    whole = min(len(text) - len(text) % _BLOCK_CHARS, _MAX_BLOCKS * _BLOCK_CHARS)
    blocks = (text[start : start + _BLOCK_CHARS] for start in range(0, whole, _BLOCK_CHARS))
    return tuple(_piece(block, _BLOCK_CHARS) for block in blocks)


def common_chars(one: Sequence[str], other: Sequence[str]) -> int:
    """Return how many characters both begin with, judged by the pieces that are equal."""
    chars = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        chars += int(left.rpartition(":")[2])
    return chars


def _piece(content: str, chars: int) -> str:
    return f"{hashlib.blake2b(content.encode(), digest_size=_HASH_BYTES).hexdigest()}:{chars}"
