"""What of a request is left out of the prompt; clients see it in the header `X-MyLLM-Ignored`."""

from __future__ import annotations

from typing import Final

HEADER: Final = "X-MyLLM-Ignored"
# More than these are only counted: proxies refuse long headers.
_MAX_NAMED: Final = 16
_MAX_CHARS: Final = 120


class Ignored:
    """Collects the names of what is left out, such as `tools[2] (web_search)`."""

    def __init__(self) -> None:
        self._named: list[str] = []
        self._count = 0

    def add(self, what: str) -> None:
        """Name one more thing, as a path into the request and, in parentheses, its type."""
        self._count += 1
        if len(self._named) < _MAX_NAMED:
            self._named.append(_plain(what))

    def headers(self) -> dict[str, str]:
        """Return the header with the names, separated by commas; none if nothing is left out."""
        if not self._count:
            return {}
        unnamed = self._count - len(self._named)
        named = [*self._named, f"and {unnamed} more"] if unnamed else self._named
        return {HEADER: ", ".join(named)}


def _plain(what: str) -> str:
    """Return the name in characters that a header may have, shortened."""
    plain = "".join(char if " " <= char <= "~" and char != "," else "?" for char in what)
    return plain if len(plain) <= _MAX_CHARS else plain[: _MAX_CHARS - 3] + "..."
