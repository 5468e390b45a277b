"""The input of a free-form tool, read from the arguments of the function that stands for it.

The model writes `{"input": "..."}`, piece by piece. The client gets the text in the quotes as soon
as it is there: a patch of a thousand lines takes minutes.
"""

from __future__ import annotations

import json
import re
from typing import Final

from myllm.api.openai.responses_tools import INPUT

_BEGIN: Final = re.compile(rf'\s*\{{\s*"{INPUT}"\s*:\s*"')
_HEX: Final = "[0-9a-fA-F]"
# A character outside the basic plane is two escapes, of which the first may come before the second.
_LOW: Final = rf"\\u[dD][c-fC-F]{_HEX}{{2}}"
_BEGUN_LOW: Final = rf"(?:\\(?:u(?:[dD](?:[c-fC-F]{_HEX}?)?)?)?)?\Z"
# The next piece that can be decoded, whatever follows: a plain text, or one escape.
_PIECE: Final = re.compile(
    rf'[^"\\]+'
    rf"|\\u[dD][89abAB]{_HEX}{{2}}(?:{_LOW}|(?!{_BEGUN_LOW}))"
    rf"|\\u(?![dD][89abAB]){_HEX}{{4}}"
    rf"|\\u(?!{_HEX}{{4}})(?!{_HEX}{{0,3}}\Z)"
    r"|\\[^u]"
)
_ESCAPES: Final = {
    r"\"": '"', r"\\": "\\", r"\/": "/", r"\b": "\b", r"\f": "\f", r"\n": "\n", r"\r": "\r",
    r"\t": "\t",
}  # fmt: skip
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class CustomInput:
    """Decodes the input of one call; `text` is all of it so far."""

    def __init__(self) -> None:
        self.text = ""
        self._raw = ""
        self._has_begun = False

    def take(self, arguments: str) -> str:
        """Take a piece of the call's arguments, and return what it adds to the input."""
        self._raw += arguments
        if not self._has_begun:
            begin = _BEGIN.match(self._raw)
            if begin is None:
                return ""
            self._has_begun = True
            self._raw = self._raw[begin.end() :]
        pieces, at = [], 0
        while (piece := _PIECE.match(self._raw, at)) is not None:
            pieces.append(_decoded(piece[0]))
            at = piece.end()
        self._raw = self._raw[at:]
        added = "".join(pieces)
        self.text += added
        return added

    def end(self) -> str:
        """Return what the input still lacks after the last piece: all of it, if it is not in the
        form that was asked for."""
        if self._has_begun:
            return ""
        self.text = self._raw
        return self.text


def whole_input(arguments: str) -> str:
    """Return the input of a call whose arguments have come to their end."""
    reading = CustomInput()
    reading.take(arguments)
    reading.end()
    return reading.text


def _decoded(piece: str) -> str:
    """Return the text of one piece; an escape that JSON does not have stands for itself."""
    if not piece.startswith("\\"):
        return piece
    if not piece.startswith("\\u") or len(piece) == len("\\u"):
        return _ESCAPES.get(piece, piece)
    return _SURROGATE.sub("\ufffd", json.loads(f'"{piece}"'))
