"""Reads the blocks of a message as parts of a message in OpenAI's form: texts and images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import orjson

from myllm.api.anthropic.blocks import (
    Block,
    ContentSource,
    DocumentBlock,
    ImageBlock,
    OtherBlock,
    SearchResultBlock,
    TextBlock,
    TextSource,
)
from myllm.errors import InvalidRequest
from myllm.gateway.conversation.ignored import Ignored
from myllm.gateway.conversation.messages import Part

# What a model can read of blocks that only Anthropic's servers make or understand, in this order.
_READABLE: Final = (
    "name", "tool_name", "server_name", "input", "query", "title", "url", "source", "text",
    "stdout", "stderr", "error_code", "content",
)  # fmt: skip
_DEEPEST: Final = 6
# Anthropic's servers encrypt the contents of these blocks, and only they can read them.
_SEALED: Final = "redacted_thinking"


class BlockReader:
    """Reads the blocks of one message; `must_read` if the request asks about this message."""

    def __init__(self, ignored: Ignored, must_read: bool) -> None:
        self._ignored = ignored
        self._must_read = must_read

    def parts(self, blocks: Iterable[Block], where: str) -> Iterator[Part]:
        """Yield what `blocks`, found at `where` in the request, show to the model.

        Calls, results and thoughts are not among it. Raises InvalidRequest for a block that cannot
        be read but must be.
        """
        for number, block in enumerate(blocks):
            yield from self._parts(block, f"{where}[{number}]")

    def _parts(self, block: Block, where: str) -> Iterator[Part]:
        match block:
            case TextBlock():
                if block.text:
                    yield _text(block.text)
            case ImageBlock():
                if block.url is None:
                    yield self._unread("image", None, where)
                else:
                    yield {"type": "image_url", "image_url": {"url": block.url}}
            case DocumentBlock():
                yield from self._document(block, where)
            case SearchResultBlock():
                yield _text(f"Search result: {block.title or ''} ({block.source or ''})")
                yield from self.parts(block.content, f"{where}.content")
            case OtherBlock():
                yield from self._other(block, where)

    def _document(self, block: DocumentBlock, where: str) -> Iterator[Part]:
        title = f"Document: {block.title}" if block.title else "Document:"
        head = f"{title}\n{block.context}" if block.context else title
        match block.source:
            case TextSource(data=text):
                yield _text(f"{head}\n{text}")
            case ContentSource(content=content):
                yield _text(head)
                yield from self.parts(content, f"{where}.source.content")
            case _:
                yield self._unread("document", block.title, where)

    def _other(self, block: OtherBlock, where: str) -> Iterator[Part]:
        if block.type == _SEALED:
            self._ignored.add(f"{where} ({block.type})")
        elif text := " ".join(_readable(block.model_extra)):
            self._ignored.add(f"{where} ({block.type})")
            yield _text(f"[{block.type}: {text}]")
        else:
            yield self._unread(block.type, None, where)

    def _unread(self, kind: str, title: str | None, where: str) -> Part:
        """Return a text in place of a block, if the request does not ask about it."""
        if self._must_read:
            raise InvalidRequest(
                f"{where}: this server cannot read this {kind}; send texts, or images as base64 or "
                "at a URL"
            )
        self._ignored.add(f"{where} ({kind})")
        return _text(f"[{kind}{f' {title!r}' if title else ''}: left out, it cannot be read here]")


def _text(text: str) -> Part:
    return {"type": "text", "text": text}


def _readable(value: Any, depth: int = 0) -> Iterator[str]:
    """Yield the texts in `value`, a part of a block."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and depth < _DEEPEST:
        for each in value:
            yield from _readable(each, depth + 1)
    elif isinstance(value, dict) and depth < _DEEPEST:
        for name in _READABLE:
            if name == "input" and value.get(name):
                yield orjson.dumps(value[name]).decode()
            elif name in value:
                yield from _readable(value[name], depth + 1)
