r"""Text from outside, made harmless for a terminal and for the log.

Titles, names, paths, answers, and output of engines and other servers may contain control
characters: a terminal obeys them (it changes colours, moves the cursor, types for its user), or
they change the order in which other characters are shown. They are escaped as Python would write
them: `\x1b`, `\u202e`.
"""

from __future__ import annotations

import re
from typing import Final

# Control characters of ASCII and of Latin-1 (which some terminals obey like ESC and a letter),
# Unicode's line separators, characters that turn the direction of the text after them, and lone
# surrogates. Direction marks (u200e, u200f, u061c) stay: Arabic and Hebrew need them, and they
# affect only themselves.
_OBEYED: Final = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_CONTROL: Final = re.compile(f"[{_OBEYED}]")
_CONTROL_IN_LINES: Final = re.compile(rf"(?![\t\n])[{_OBEYED}]")
_BREAK: Final = re.compile(r"\r\n|[\t\n\x0b\x0c\r\x85\u2028\u2029]")


def on_one_line(text: str) -> str:
    """`text` on one line: a space for each line break and tab, all other control characters
    escaped."""
    if text.isprintable():
        return text
    return _CONTROL.sub(_escaped, _BREAK.sub(" ", text))


def in_lines(text: str) -> str:
    """`text` with its line breaks and tabs, all other control characters escaped."""
    if text.isprintable():
        return text
    return _CONTROL_IN_LINES.sub(_escaped, text.replace("\r\n", "\n"))


def in_json(document: str) -> str:
    """An equal JSON document whose control characters are escaped, except for the line breaks and
    tabs between its values."""
    if document.isprintable():
        return document
    return _CONTROL_IN_LINES.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
