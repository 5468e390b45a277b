"""Whether a text matches a pattern, in bounded time whatever the pattern is."""

from __future__ import annotations

from typing import Final

from myllm.gateway.constraints.characters import contains
from myllm.gateway.constraints.patterns import translate
from myllm.gateway.constraints.regex import Anchor, Chars, Either, Node, Repeat, Unsupported

_MAX_WORK: Final = 200_000


def matching(pattern: str, texts: list[str]) -> list[str]:
    """Return those of `texts` that match. Raises Unsupported if that would take long."""
    whole = translate(pattern).whole
    if (len(pattern) + 1) * sum(len(text) + 1 for text in texts) > _MAX_WORK:
        raise Unsupported("too many values for such a pattern")
    return [text for text in texts if len(text) in _ends(whole, text, {0})]


def _ends(node: Node, text: str, starts: set[int]) -> set[int]:
    """Return where matches can end that begin at `starts`."""
    match node:
        case Chars(ranges):
            return {i + 1 for i in starts if i < len(text) and contains(ranges, ord(text[i]))}
        case Repeat():
            return _repeated(node, text, starts)
        case Either():
            found: set[int] = set()
            for row in node.ways:
                ends = starts
                for item in row:
                    ends = _ends(item, text, ends)
                found |= ends
            return found
        case Anchor():
            raise Unsupported("an anchor inside")


def _repeated(node: Repeat, text: str, starts: set[int]) -> set[int]:
    for _ in range(node.least):
        ends = _ends(node.item, text, starts)
        if ends == starts:  # nothing changes any more
            break
        starts = ends
    found, new, count = starts, starts, node.least
    while new and (node.most is None or count < node.most):
        new = _ends(node.item, text, new) - found
        found = found | new
        count += 1
    return found
