r"""Text from outside, made harmless for whoever reads it: a person on a terminal, or a log.

Titles, names, paths, answers, what engines and other servers say: any of it may contain characters
that a terminal obeys (it changes colours, moves the cursor, types for its user) or that change the
order in which others are shown. They are shown as Python would write them: `\x1b`, `\u202e`.
"""

from __future__ import annotations

import re
from typing import Final

# Controls of ASCII and of Latin-1 (which some terminals obey like ESC and a letter), Unicode's
# separators of lines, what turns the direction of the text that follows, and halves of characters.
# Marks of direction (u200e, u200f, u061c) stay: Arabic and Hebrew need them, and they turn no more
# than themselves.
_OBEYED: Final = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_CONTROL: Final = re.compile(f"[{_OBEYED}]")
_CONTROL_IN_LINES: Final = re.compile(rf"(?![\t\n])[{_OBEYED}]")
_BREAK: Final = re.compile(r"\r\n|[\t\n\x0b\x0c\r\x85\u2028\u2029]")


def on_one_line(text: str) -> str:
    """`text` as one line: a space for each break and tab, and everything else that is obeyed
    escaped."""
    if text.isprintable():
        return text
    return _CONTROL.sub(_escaped, _BREAK.sub(" ", text))


def in_lines(text: str) -> str:
    """`text` with its lines and tabs, and everything else that is obeyed escaped."""
    if text.isprintable():
        return text
    return _CONTROL_IN_LINES.sub(_escaped, text.replace("\r\n", "\n"))


def in_json(document: str) -> str:
    """A JSON document that says the same, without characters that are obeyed, but for the breaks
    and tabs between its parts."""
    if document.isprintable():
        return document
    return _CONTROL_IN_LINES.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
