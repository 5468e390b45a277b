"""The names that `/set` knows: the API's options, `thinking`, and `verbose`."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from myllm.errors import InvalidRequest

if TYPE_CHECKING:
    from myllm.cli.run.talk import Choices

OPTIONS = (
    "temperature", "top_p", "top_k", "min_p", "max_tokens", "seed", "repeat_penalty",
    "presence_penalty", "frequency_penalty", "thinking", "verbose",
)  # fmt: skip
_SWITCHES = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}


def parse(name: str, text: str) -> Any:
    """The value of a setting; None for `default`, which resets it.

    Raises InvalidRequest for an unknown name, with the nearest one, and for a wrong value.
    """
    if name not in OPTIONS:
        near = difflib.get_close_matches(name, OPTIONS, n=1, cutoff=0.0)[0]
        raise InvalidRequest(f"unknown setting '{name}'; did you mean '{near}'?")
    if name == "verbose" and not text:
        return True
    if not text:
        raise InvalidRequest(f"/set {name} needs a value, or `default`")
    if text == "default":
        return False if name == "verbose" else None
    if name in ("verbose", "thinking"):
        if text.lower() not in _SWITCHES:
            raise InvalidRequest(f"{name} must be on or off")
        return _SWITCHES[text.lower()]
    return _option(name, text)


def shown(choices: Choices, everything: bool = False) -> list[str]:
    """One line for each setting that was changed; with `everything`, for all settings."""
    values: dict[str, Any] = dict.fromkeys(OPTIONS) | choices.options
    values["thinking"] = choices.thinking
    values["verbose"] = choices.verbose
    lines = []
    for name, value in values.items():
        if value is not None or everything:
            lines.append(f"{name:<18} {_text(value)}")
    return lines


def _text(value: Any) -> str:
    if value is None:
        return "default"
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def _option(name: str, text: str) -> Any:
    """The value as the API accepts it, checked by the API's own rules."""
    from pydantic import ValidationError

    from myllm.api.errors.validation import rule
    from myllm.api.native.options import Options

    try:
        return Options.model_validate({name: text}).given()[name]
    except ValidationError as failure:
        must = rule(name, failure.errors()[0], Options.model_fields)
        raise InvalidRequest(f"{name} {must}") from None
