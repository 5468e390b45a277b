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
_MUST_BE: Final = "must be "
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
    errors = _most_telling(found)
    location = _location(errors[0])
    param = _path(location) if location and isinstance(location[0], str) else None
    return _sentence(errors, location, content_type, options), param


def rule(name: str, error: Any, options: OptionFields) -> str:
    """Return what a value must be; for an option's range, with both of its ends."""
    if error["type"] in _OUT_OF_RANGE and name in options:
        return _range(options[name])
    if error["type"] == "literal_error":
        return f"must be one of {error['ctx']['expected']}"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if error["type"] == "greater_than_equal":
        return f"must be {error['ctx']['ge']} or more"
    if error["type"] == "less_than_equal":
        return f"must be {error['ctx']['le']} or less"
    if (what := _TOO_LONG.get(error["type"])) is not None:
        return f"must have {error['ctx']['max_length']} {what} at most"
    return _RULES.get(error["type"]) or f"is wrong: {error['msg']}"


def _most_telling(found: Sequence[Any]) -> Sequence[Any]:
    """The first error, or those of all alternatives if its value may be one of several types. If
    the value has the type of one alternative and is wrong inside, only the errors inside count, and
    "too long" counts alone."""
    for error in found:
        if error["type"] in _TOO_LONG:
            return [error]
    first = found[0]
    # A form's field, too, can be called `name[]`: behind "body" comes a field, and no type.
    begin = 2 if first["loc"][0] == "body" else 1
    at = next((at for at in range(begin, len(first["loc"])) if _names_type(first["loc"][at])), None)
    if at is None:
        return [first]
    union = [error for error in found if error["loc"][:at] == first["loc"][:at]]
    unnamed = [error | {"loc": error["loc"][:at] + error["loc"][at + 1 :]} for error in union]
    inside = [error for error in unnamed if len(error["loc"]) > at]
    return _most_telling(inside) if inside else unnamed


def _names_type(part: str | int) -> bool:
    return isinstance(part, str) and _ALTERNATIVE.search(part) is not None


def _location(error: Any) -> list[str | int]:
    """Where in the body the error is, without the names of a union's alternatives."""
    parts = [part for part in error["loc"] if part != "body"]
    first, rest = parts[:1], parts[1:]
    return first + [part for part in rest if not _names_type(part)]


def _sentence(
    errors: Sequence[Any], location: Sequence[str | int], content_type: str, options: OptionFields
) -> str:
    error = errors[0]
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
    rules = [rule(str(location[-1]), each, options) for each in errors]
    return f"{_path(location)} {_any_of(rules)}"


def _any_of(rules: Sequence[str]) -> str:
    """The rules of a value that has to follow one of them. One that is not about what the value
    must be, such as "must not be empty", comes from the alternative whose type the value has."""
    for each in rules:
        if not each.startswith(_MUST_BE):
            return each
    *others, last = dict.fromkeys(each.removeprefix(_MUST_BE) for each in rules)
    return _MUST_BE + (f"{', '.join(others)} or {last}" if others else last)


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
