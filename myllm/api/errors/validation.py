"""What is wrong with a request, in one sentence: pydantic's errors in the API's own words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic.fields import FieldInfo

from myllm.json_input import is_json_type

OptionFields = Mapping[str, FieldInfo]
"""The fields of the native dialect's `options`: their names and bounds appear in sentences."""

_RULES: Final = {
    "missing": "is required",
    "string_type": "must be a string",
    "string_unicode": "must be valid Unicode",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is too large a number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "list_type": "must be a list",
    "model_attributes_type": "must be an object",
    "model_type": "must be an object",
    "dict_type": "must be an object",
}
# The names that pydantic gives to the alternatives of a union, in the location of an error.
_ALTERNATIVE: Final = re.compile(r"\[|^(constrained-)?(str|int|float|bool)$")
_TOO_LONG: Final = {"too_long": "entries", "string_too_long": "characters"}
_OUT_OF_RANGE: Final = {
    "greater_than_equal",
    "less_than_equal",
    "finite_number",
    "int_parsing_size",
}


def explain(
    found: Sequence[Any], content_type: str, options: OptionFields
) -> tuple[str, str | None]:
    """Return the sentence for pydantic's errors `found`, and the path of the field it is about."""
    error = _most_telling(found)
    location = _location(error)
    param = _path(location) if location and isinstance(location[0], str) else None
    return _sentence(error, location, content_type, options), param


def rule(name: str, error: Any, options: OptionFields) -> str:
    """Return what a value must be; for an option's range, with both of its ends."""
    if error["type"] in _OUT_OF_RANGE and name in options:
        return _range(options[name])
    if error["type"] == "literal_error":
        return f"must be one of {error['ctx']['expected']}"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if (what := _TOO_LONG.get(error["type"])) is not None:
        return f"must have {error['ctx']['max_length']} {what} at most"
    return _RULES.get(error["type"]) or f"is wrong: {error['msg']}"


def _most_telling(found: Sequence[Any]) -> Any:
    """The first error, unless one says "too long": of a union's errors, that is the true one."""
    return next((error for error in found if error["type"] in _TOO_LONG), found[0])


def _location(error: Any) -> list[str | int]:
    """Where in the body the error is, without the names of a union's alternatives."""
    parts = [part for part in error["loc"] if part != "body"]
    first, rest = parts[:1], parts[1:]
    return first + [part for part in rest if isinstance(part, int) or not _ALTERNATIVE.search(part)]


def _sentence(
    error: Any, location: Sequence[str | int], content_type: str, options: OptionFields
) -> str:
    kind = error["type"]
    if kind == "value_error" and not location:
        return str(error["ctx"]["error"])
    if not location:
        if not is_json_type(content_type):
            return f"Content-Type must be application/json, not '{content_type}'"
        return "The body must be a JSON object"
    if kind == "extra_forbidden":
        # The time to find close matches grows with the square of the length.
        given = str(location[-1])[:64]
        near = difflib.get_close_matches(given, sorted(options), n=1, cutoff=0.0)[0]
        return f"Unknown option '{location[-1]}'; did you mean '{near}'?"
    return f"{_path(location)} {rule(str(location[-1]), error, options)}"


def _path(location: Sequence[str | int]) -> str:
    """`messages[0].role`; an option is called by its bare name, as in the documentation."""
    parts = list(location)
    if parts[0] == "options" and len(parts) > 1:
        parts = [parts[1]]
    text = str(parts[0])
    for part in parts[1:]:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text


def _range(option: FieldInfo) -> str:
    bounds: dict[str, Any] = {}
    for constraint in option.metadata:
        for end in ("ge", "le"):
            bounds[end] = getattr(constraint, end, bounds.get(end))
    if bounds["le"] is None:
        return f"must be {bounds['ge']} or more"
    return f"must be between {bounds['ge']} and {bounds['le']}"
