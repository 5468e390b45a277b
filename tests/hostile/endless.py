"""Fields of `/completion` that send an engine's main thread into a computation without end."""

from __future__ import annotations

from typing import Any

ENDLESS: dict[str, dict[str, Any]] = {
    "pattern": {
        "json_schema": {"type": "string", "pattern": "^((((a{0,99}){0,99}){0,99}){0,99})$"}
    },
    "grammar": {
        "grammar": "root ::= a{0,99}\na ::= b{0,99}\nb ::= c{0,99}\nc ::= d{0,99}\nd ::= [a]"
    },
    "breakers": {
        "dry_multiplier": 1,
        "dry_sequence_breakers": [f"{n} is long enough" for n in range(400_000)],
    },
}
