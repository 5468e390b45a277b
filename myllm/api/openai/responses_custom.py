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
_HIGH: Final = r"\\u[dD][89abAB][0-9a-fA-F]{2}"  # the first half of a character
# What can be decoded: not a part of an escape, and a first half only with what follows it.
_WHOLE: Final = re.compile(
    rf'(?:[^"\\]+|\\[^u]|{_HIGH}(?:\\u[0-9a-fA-F]{{4}}|(?=[^\\]|\\[^u]))'
    r"|\\u(?![dD][89abAB])[0-9a-fA-F]{4})*"
)
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
        ready = _WHOLE.match(self._raw)
        if ready is None or not ready[0]:
            return ""
        self._raw = self._raw[ready.end() :]
        added = _decoded(ready[0])
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


def _decoded(inside: str) -> str:
    """Return the text between the quotes of a JSON string."""
    try:
        text = json.loads(f'"{inside}"', strict=False)
    except json.JSONDecodeError:  # an escape that JSON does not have
        return inside
    return _SURROGATE.sub("\ufffd", text)
