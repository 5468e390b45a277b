"""How alike two prompts begin, told from short hashes of their pieces.

A piece is a message, or 256 characters of a raw prompt, written as `hash:characters`. Prompts
whose first pieces are equal begin alike, so an engine that has read one of them has read that
much of the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from myllm.sessions.history import Message

Pieces = tuple[str, ...]
_BLOCK_CHARS: Final = 256
_MOST_BLOCKS: Final = 4096  # more than any context holds
_LONG: Final = 1 << 16
_HASH_BYTES: Final = 8


def pieces_of_messages(messages: Iterable[Message]) -> Pieces:
    """The pieces of a conversation."""
    said = ((each.role, _told([each.content, each.said()])) for each in messages)
    return tuple(_piece(f"{role}\0{told}", len(told)) for role, told in said)


def pieces_of_wire(messages: Iterable[Mapping[str, Any]]) -> Pieces:
    """The pieces of a conversation in OpenAI's form; anything may be in its messages."""
    said = ((str(each.get("role")), _told(each.get("content"))) for each in messages)
    return tuple(_piece(f"{role}\0{told}", len(told)) for role, told in said)


def _told(content: Any) -> str:
    """All of `content` as one text; of a picture or a whole book its beginning and its length."""
    if isinstance(content, str):
        return content if len(content) <= _LONG else f"{content[:_LONG]}{len(content)}"
    if isinstance(content, Mapping):
        return "".join(f"{name}{_told(value)}\n" for name, value in content.items())
    if isinstance(content, list):
        return "".join(f"{_told(part)}\n" for part in content)
    return str(content)


def pieces_of_text(text: str) -> Pieces:
    """The pieces of a raw prompt; a last one that is not full says nothing about a longer text."""
    whole = min(len(text) - len(text) % _BLOCK_CHARS, _MOST_BLOCKS * _BLOCK_CHARS)
    blocks = (text[start : start + _BLOCK_CHARS] for start in range(0, whole, _BLOCK_CHARS))
    return tuple(_piece(block, _BLOCK_CHARS) for block in blocks)


def common_chars(one: Sequence[str], other: Sequence[str]) -> int:
    """How many characters the first pieces have that are equal."""
    chars = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        chars += int(left.rpartition(":")[2])
    return chars


def _piece(content: str, chars: int) -> str:
    return f"{hashlib.blake2b(content.encode(), digest_size=_HASH_BYTES).hexdigest()}:{chars}"
