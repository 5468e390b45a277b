"""What of a request is left out of the prompt; clients see it in the header `X-MyLLM-Ignored`."""

from __future__ import annotations

from itertools import islice
from typing import Final

HEADER: Final = "X-MyLLM-Ignored"
# More than these are only counted: proxies refuse long headers.
_MAX_NAMED: Final = 16
_MAX_CHARS: Final = 120


class Ignored:
    """Collects the names of what is left out, such as `tools[2] (web_search)`."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}

    def add(self, what: str) -> None:
        """Name a thing, as a path into the request and, in parentheses, its type.

        What is named again, because the request is prepared for another engine, counts once.
        """
        self._names[what[:_MAX_CHARS]] = None

    def headers(self) -> dict[str, str]:
        """Return the header with the names, separated by commas; none if nothing is left out."""
        if not self._names:
            return {}
        named = [_plain(name) for name in islice(self._names, _MAX_NAMED)]
        if unnamed := len(self._names) - len(named):
            named.append(f"and {unnamed} more")
        return {HEADER: ", ".join(named)}


def _plain(what: str) -> str:
    """Return the name in characters that a header may have."""
    return "".join(char if " " <= char <= "~" and char != "," else "?" for char in what)
