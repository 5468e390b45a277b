"""Which models exist for a key."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate
from functools import lru_cache
from typing import Final

_TAG: Final = ":latest"
_SPECIAL: Final = frozenset("*?[")


class Scope:
    """The models that match one of `patterns`: names, aliases, or patterns with `*`, `?`, `[…]`.

    Upper and lower case differ, as they do in the names of models. A model is in the scope with all
    its names if one of them matches.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        untagged = [pattern.removesuffix(_TAG) for pattern in patterns]
        self._names = frozenset(untagged)
        globs = [pattern for pattern in untagged if not _SPECIAL.isdisjoint(pattern)]
        self._matches = re.compile("|".join(map(translate, globs))).match if globs else None

    def has(self, name: str, aliases: Iterable[str] = ()) -> bool:
        """Return whether the model called `name`, with these `aliases`, is in the scope."""
        return self._has(name) or any(map(self._has, aliases))

    def _has(self, name: str) -> bool:
        name = name.removesuffix(_TAG)
        return name in self._names or bool(self._matches and self._matches(name))


@lru_cache(1024)
def scope_of(patterns: tuple[str, ...]) -> Scope | None:
    """Return the scope of a key with these `patterns`; None for a key that may use every model."""
    return Scope(patterns) if patterns else None
