"""The options of `myllm key create` and `update`: what a key may do, as people write it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from myllm.durations import parse_duration

_NONE: Final = "none"
_NEVER: Final = "never"


class Role(StrEnum):
    """What a key is for."""

    USER = "user"
    ADMIN = "admin"
    METRICS = "metrics"


RoleOption = Annotated[
    Role | None,
    typer.Option(
        help="user: use models; admin: manage the server as well; metrics: read /metrics.",
        show_default=False,
    ),
]
Models = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Its models: names, aliases and patterns, such as 'qwen*,demo'; '*': all.",
        show_default=False,
    ),
]
RequestsPerMinute = Annotated[
    str | None,
    typer.Option("--rpm", metavar="N", help="Requests per minute, or none.", show_default=False),
]
TokensPerMinute = Annotated[
    str | None,
    typer.Option(
        "--tpm",
        metavar="N",
        help="Tokens per minute, of prompts and answers, or none.",
        show_default=False,
    ),
]
Concurrent = Annotated[
    str | None,
    typer.Option(metavar="N", help="Requests at the same time, or none.", show_default=False),
]
MaxPriority = Annotated[
    int | None,
    typer.Option(min=-10, max=10, help="Its requests' highest priority.", show_default=False),
]
Expires = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="When it stops working: 90d or 12h from now, 2027-01-31 (when that day begins, here), "
        "or never.",
        show_default=False,
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force", help="Even if afterwards no admin key works, or none as long as before."
    ),
]


def rules(
    role: Role | None,
    models: str | None,
    rpm: str | None,
    tpm: str | None,
    concurrent: str | None,
    max_priority: int | None,
    expires: str | None,
) -> dict[str, Any]:
    """The given rules, as /api/keys takes them; raises BadParameter, which names the option."""
    found: dict[str, Any] = {}
    if role is not None:
        found["role"] = role.value
    if models is not None:
        found["models"] = _patterns(models)
    for option, field, text in (
        ("--rpm", "requests_per_minute", rpm),
        ("--tpm", "tokens_per_minute", tpm),
        ("--concurrent", "concurrent_requests", concurrent),
    ):
        if text is not None:
            found[field] = _limit(option, text)
    if max_priority is not None:
        found["max_priority"] = max_priority
    if expires is not None:
        found["expires_at"] = _moment(expires)
    return found


def _patterns(text: str) -> list[str]:
    patterns = [part.strip() for part in text.split(",") if part.strip()]
    if not patterns:
        raise typer.BadParameter("names no model; '*' stands for all", param_hint="--models")
    return [] if "*" in patterns else patterns


def _limit(option: str, text: str) -> int | None:
    if text == _NONE:
        return None
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise typer.BadParameter(
            f"'{text}' is neither a whole number of at least 1 nor 'none'", param_hint=option
        )
    return int(text)


def _moment(text: str) -> str | None:
    """The time in UTC, or None for never; a date and a time without a zone are local."""
    if text == _NEVER:
        return None
    try:
        return _iso(datetime.fromisoformat(text).timestamp())
    except (ValueError, OverflowError, OSError):
        pass
    try:
        return _iso(time.time() + _from_now(text))
    except (ValueError, OverflowError, OSError):
        raise typer.BadParameter(
            f"'{text}' is not a time; write 90d, 12h, 2027-01-31 or never", param_hint="--expires"
        ) from None


def _from_now(text: str) -> float:
    """The seconds of a duration with a unit: `90` alone could be days as well as seconds."""
    seconds = parse_duration(text)
    if text.strip()[-1:].isdigit() or seconds <= 0:
        raise ValueError
    return seconds


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def limits_text(key: dict[str, Any]) -> str:
    """The limits of a key, as /api/keys shows it, in words."""
    found = [
        f"{key[field]} {unit}"
        for field, unit in (
            ("requests_per_minute", "requests/min"),
            ("tokens_per_minute", "tokens/min"),
            ("concurrent_requests", "at once"),
        )
        if key[field] is not None
    ]
    if key["max_priority"]:
        found.append(f"priority {key['max_priority']}")
    return ", ".join(found) or "none"
