"""The origins of web pages that may send requests; some are given as patterns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_ANY: Final = "*"
_ANY_HOST: Final = r"(?:[^/:\s]+|\[[0-9a-f:.]+\])"
_ANY_PORT: Final = r"(?::[0-9]+)?"


class Origins:
    """The allowed origins, as `settings_types.py: Origin` describes them.

    `is_any` is whether every origin is allowed; `regex` matches those that are, and is None if
    there are none.
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self.is_any = _ANY in patterns
        self.regex = "|".join(map(_regex, patterns)) or None
        self._allowed = re.compile(self.regex) if self.regex else None

    def __bool__(self) -> bool:
        return self._allowed is not None

    def __contains__(self, origin: str) -> bool:
        return self._allowed is not None and self._allowed.fullmatch(origin) is not None


def _regex(pattern: str) -> str:
    if pattern in (_ANY, "null"):
        return ".*" if pattern == _ANY else pattern
    found = re.fullmatch(r"(?P<scheme>.+://)(?P<host>.+?)(?P<port>:[0-9]+|:\*)?", pattern)
    assert found is not None, "settings_types.py has checked it"
    scheme, host, port = found["scheme"], found["host"], found["port"] or ""
    if host == "*":
        host = _ANY_HOST
    elif host.startswith("*."):
        host = r"(?:[^/:.\s]+\.)+" + re.escape(host.removeprefix("*."))
    else:
        host = re.escape(host)
    return re.escape(scheme) + host + (_ANY_PORT if port == ":*" else port)
