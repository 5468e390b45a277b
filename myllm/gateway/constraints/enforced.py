"""Makes schemas say only what an engine enforces, so that answers match what clients asked for.

llama.cpp ignores what it does not know: it accepts any string for most regular expressions, and
any value where `not` or `if` would decide. Here patterns are translated. What remains is refused in
the schema of an answer, and left out of the parameters of a tool, where it is only advice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from myllm.errors import InvalidRequest
from myllm.gateway.constraints.checks import MAX_BYTES, MAX_PATTERN_CHARS, check_pattern
from myllm.gateway.constraints.combinations import combined
from myllm.gateway.constraints.keywords import (
    ALTERNATIVES,
    BOUNDS,
    COUNTS,
    DECIDING,
    NARROWING,
    Schema,
)
from myllm.gateway.constraints.patterns import Translated, translate
from myllm.gateway.constraints.regex import Unsupported
from myllm.gateway.conversation.ignored import Ignored
from myllm.threads import in_thread_if

_FIELDS: Final = ("json_schema", "response_format", "tools")
_WANTED: Final = re.compile(
    rb'"(?:(?:pattern|patternProperties|not|if|dependent\w+|dependencies|oneOf|anyOf|allOf|multipleOf'
    rb"|uniqueItems|(?:min|max)Properties|contains|minimum|maximum|exclusiveM\w+|propertyNames"
    rb"|required|enum|const"
    rb')":|(?:min|max)(?:Length|Items)":[0-9]+[.e])'
)
# What most parts of a schema have none of.
_LOOKED_AT: Final = frozenset(
    {*DECIDING, *NARROWING, *BOUNDS, *ALTERNATIVES, *COUNTS, "allOf", "pattern",
     "propertyNames", "required", "enum", "const"}
)  # fmt: skip
_PARENTS: Final = frozenset(
    {*ALTERNATIVES, "allOf", "items", "prefixItems", "additionalProperties", "properties"}
)
# Beside these an engine does not look at properties.
_READ_FIRST: Final = frozenset({*ALTERNATIVES, "allOf", "enum", "const"})
_MAX_REFERENCES: Final = 16
# Longer ones are read outside the event loop; a pattern takes longer than the rest.
_AT_ONCE_BYTES: Final = 16_384
_AT_ONCE_WITH_PATTERN: Final = 1_024


async def enforced(fields: Mapping[str, Any], ignored: Ignored) -> dict[str, Any]:
    """Return those of `fields`, of an engine's request, that need other schemas, with these.

    `ignored` collects what it does not. Raises InvalidRequest for the schema of an answer that it
    cannot enforce.
    """
    changed = {}
    for name in _FIELDS:
        if (value := fields.get(name)) is None:
            continue
        try:
            text = orjson.dumps(value)
        except TypeError as failure:
            raise InvalidRequest(f"{name} cannot be passed on: {failure}") from None
        if len(text) > MAX_BYTES or _WANTED.search(text) is None:
            continue  # too much is refused later
        at_once = _AT_ONCE_WITH_PATTERN if b'"pattern"' in text else _AT_ONCE_BYTES
        after = await in_thread_if(len(text) > at_once, _rewritten, name, text, ignored)
        if after is not None:
            changed[name] = after
    return changed


def _rewritten(name: str, text: bytes, ignored: Ignored) -> Any:
    """Return the field as it is after that; None if it stays the same."""
    value = orjson.loads(text)
    for path, root in _roots(name, value):
        _Rewriting(path, root, ignored, is_tool=name == "tools").run()
    return value if orjson.dumps(value) != text else None


def _roots(name: str, value: Any) -> Iterator[tuple[str, Schema]]:
    """The schemas in a field, with their paths."""
    found: list[tuple[str, Any]] = [(name, value if name == "json_schema" else None)]
    if name == "tools" and isinstance(value, list):
        path = "tools[{}].function.parameters"
        found = [(path.format(i), _at(tool, "function", "parameters"))
                 for i, tool in enumerate(value)]  # fmt: skip
    elif name == "response_format":
        paths = (("schema",), ("json_schema", "schema"))
        found = [(".".join((name, *path)), _at(value, *path)) for path in paths]
    return ((path, root) for path, root in found if isinstance(root, dict))


def _at(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


class _Rewriting:
    """One walk over a schema and what its references lead to; every part is seen once."""

    def __init__(self, path: str, root: Schema, ignored: Ignored, *, is_tool: bool) -> None:
        self._root = root
        self._ignored = ignored
        self._is_tool = is_tool
        self._rest: list[tuple[str, Schema]] = [(path, root)]
        self._followed: set[str] = set()
        self._seen: set[int] = set()

    def run(self) -> None:
        """Raise InvalidRequest."""
        while self._rest:
            path, schema = self._rest.pop()
            if id(schema) in self._seen:
                continue
            self._seen.add(id(schema))
            if isinstance(ref := schema.get("$ref"), str):
                self._follow(ref)
                continue
            if not _LOOKED_AT.isdisjoint(schema):
                for name in COUNTS:
                    if isinstance(count := schema.get(name), float) and count.is_integer():
                        schema[name] = int(count)
                for name, why in combined(schema, self._resolved):
                    self._drop(path, schema, name, why)
                if isinstance(ref := schema.get("$ref"), str):
                    self._follow(ref)
                    continue
                self._rewrite(path, schema)
            if not _PARENTS.isdisjoint(schema):
                self._rest.extend(_children(path, schema))

    def _follow(self, ref: str) -> None:
        if ref not in self._followed:
            self._followed.add(ref)
            if (target := self._target(ref)) is not None:
                self._rest.append((ref, target))

    def _target(self, ref: str) -> Schema | None:
        target: Any = self._root
        for name in ref.removeprefix("#").strip("/").split("/"):
            if isinstance(target, list) and name.isdecimal() and int(name[:9]) < len(target):
                target = target[int(name[:9])]
            else:
                target = target.get(name) if isinstance(target, dict) and name else None
        return target if isinstance(target, dict) else None

    def _resolved(self, schema: Schema) -> Schema | None:
        found: Schema | None = schema
        for _ in range(_MAX_REFERENCES):
            if found is None or not isinstance(ref := found.get("$ref"), str):
                return found
            found = self._target(ref)
        return None

    def _rewrite(self, path: str, schema: Schema) -> None:
        for name in DECIDING:
            if name in schema:
                self._drop(path, schema, name, f"{name} cannot be enforced")
        for name in NARROWING:
            if name in schema:
                self._ignored.add(f"{path}.{name}")
        if _allows(schema, "number"):
            for name in BOUNDS:
                if name in schema:
                    self._ignored.add(f"{path}.{name}")
        if schema.get("propertyNames", {"type": "string"}) != {"type": "string"}:
            self._ignored.add(f"{path}.propertyNames")
        if isinstance(pattern := schema.get("pattern"), str) and _allows(schema, "string"):
            self._translate(path, schema, pattern)
        if "required" in schema and _READ_FIRST.isdisjoint(schema) and _allows(schema, "object"):
            self._require(path, schema)

    def _require(self, path: str, schema: Schema) -> None:
        """Give each required property a schema, since engines require no others."""
        required, properties = schema["required"], schema.get("properties", {})
        if not (isinstance(required, list) and isinstance(properties, dict)):
            return
        missing = [each for each in required if isinstance(each, str) and each not in properties]
        if not missing:
            return
        if schema.get("additionalProperties", True) is True:
            if "properties" not in schema:
                schema["additionalProperties"] = True
            schema["properties"] = {**properties, **{name: {} for name in missing}}
            return
        if not self._is_tool:
            raise InvalidRequest(
                f"{path}.required: '{missing[0][:200]}' is required, but not in properties; "
                "add it there or leave it out"
            )
        self._ignored.add(f"{path}.required")

    def _translate(self, path: str, schema: Schema, pattern: str) -> None:
        if len(pattern) > MAX_PATTERN_CHARS:
            return  # refused later, with the limit
        try:
            translated = self._with_lengths(path, schema, translate(pattern)).text
            check_pattern("spelled for an engine it", translated)
            schema["pattern"] = translated
        except (Unsupported, InvalidRequest) as failure:
            shown = pattern if len(pattern) <= 200 else f"{pattern[:200]}…"
            self._drop(path, schema, "pattern", f"'{shown}' cannot be enforced: {failure}")

    def _with_lengths(self, path: str, schema: Schema, translated: Translated) -> Translated:
        for name in ("maxLength", "minLength"):
            if not isinstance(end := schema.get(name), int):
                continue
            least, most = (0, end) if name == "maxLength" else (end, None)
            try:
                translated = translated.with_length(least, most)
            except Unsupported:
                if not self._is_tool:
                    raise
                self._ignored.add(f"{path}.{name}")
        return translated

    def _drop(self, path: str, schema: Schema, name: str, why: str) -> None:
        if not self._is_tool:
            raise InvalidRequest(f"{path}.{name}: {why}; leave it out or say it differently")
        del schema[name]
        self._ignored.add(f"{path}.{name}")


def _allows(schema: Schema, kind: str) -> bool:
    """Whether an engine takes `schema` for one of this type; one of no type is judged by `kind`."""
    stated = schema.get("type")
    if stated is None and kind == "object":
        return not {"items", "prefixItems", "pattern", "minLength", "maxLength"} & schema.keys()
    if stated is None:
        return kind == "string" and "properties" not in schema and "items" not in schema
    return kind in stated if isinstance(stated, list) else stated == kind


def _children(path: str, schema: Schema) -> Iterator[tuple[str, Schema]]:
    """The schemas in `schema` that an engine reads."""
    for name in ("items", "additionalProperties"):
        if isinstance(child := schema.get(name), dict):
            yield f"{path}.{name}", child
    for name in (*ALTERNATIVES, "allOf", "prefixItems", "items"):
        if isinstance(children := schema.get(name), list):
            for i, child in enumerate(children):
                if isinstance(child, dict):
                    yield f"{path}.{name}[{i}]", child
    if isinstance(properties := schema.get("properties"), dict):
        for name, child in properties.items():
            if isinstance(child, dict):
                yield f"{path}.properties.{name}", child
