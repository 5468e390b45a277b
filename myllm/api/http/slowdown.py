"""Answers to wrong keys are delayed, so that guessing takes long."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from ipaddress import IPv6Address
from typing import Final

_FIRST_S: Final = 0.05
_STEP_S: Final = 2.0
_LONGEST_S: Final = 30.0
# An address without wrong keys for so long begins anew.
_FORGIVEN_S: Final = 60.0
MOST: Final = 4096
"""As many addresses are remembered."""


class Slowdown:
    """How long each answer to a wrong key has to wait, by the address that sent it.

    The wrong keys of one address are answered one after the other: the pause between two answers
    doubles from 50 ms to 2 s, and none waits longer than half a minute. Only answers to wrong keys
    wait, so that the other users behind the same address are not held up.
    """

    def __init__(self) -> None:
        # How many wrong keys it sent, and when the last of them is answered.
        self._of: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._of)

    def delay_s(self, address: str) -> float:
        """Return how long the answer to the wrong key that this address just sent has to wait."""
        place, now = _place(address), time.monotonic()
        failures, last_at = self._of.pop(place, (0, now))
        if now - last_at > _FORGIVEN_S:
            failures = 0
        pause_s = min(math.ldexp(_FIRST_S, failures), _STEP_S)
        answer_at = min(max(last_at, now) + pause_s, now + _LONGEST_S)
        # Addresses that have just failed are at the end, and the others are forgotten first.
        self._of[place] = min(failures + 1, 16), answer_at
        if len(self._of) > MOST:
            self._of.popitem(last=False)
        return answer_at - now


def _place(address: str) -> str:
    """Return `address`; of an IPv6 address its network, all of which one client usually has."""
    if ":" not in address:
        return address
    try:
        return IPv6Address(address).packed[:8].hex()
    except ValueError:
        return address
