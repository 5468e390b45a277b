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
_HASH_BYTES: Final = 8


def of_messages(messages: Iterable[Message]) -> Pieces:
    """The pieces of a conversation."""
    return tuple(
        _piece(f"{each.role}\0{written}", len(written))
        for each, written in ((message, message.written()) for message in messages)
    )


def of_wire(messages: Iterable[Mapping[str, Any]]) -> Pieces:
    """The pieces of a conversation in OpenAI's form; anything may be in its messages."""
    contents = [(str(each.get("role")), _written(each)) for each in messages]
    return tuple(_piece(f"{role}\0{content}", len(content)) for role, content in contents)


def _written(message: Mapping[str, Any]) -> str:
    """What `message` says, as one text."""
    content = message.get("content")
    return content if isinstance(content, str) else str(content)


def of_text(text: str) -> Pieces:
    """The pieces of a raw prompt; a last one that is not full says nothing about a longer text."""
    whole = len(text) - len(text) % _BLOCK_CHARS
    blocks = (text[start : start + _BLOCK_CHARS] for start in range(0, whole, _BLOCK_CHARS))
    return tuple(_piece(block, _BLOCK_CHARS) for block in blocks)


def common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many characters the first pieces have that are equal."""
    chars = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        chars += int(left.rpartition(":")[2])
    return chars


def _piece(content: str, chars: int) -> str:
    return f"{hashlib.blake2b(content.encode(), digest_size=_HASH_BYTES).hexdigest()}:{chars}"
