#!/usr/bin/env python3
"""Write the reference of the keys of `config.json`, from the classes in `models/config.py`.

The table goes between two markers in `docs/models.md`. The JSON Schema, with which editors complete
and check a `config.json`, is `docs/config.schema.json`. A test fails when either is out of date.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from myllm.models.config import ModelConfig, key_schemas

_ROOT = Path(__file__).parent.parent
PAGE = _ROOT / "docs" / "models.md"
BEGIN = "<!-- keys of config.json, written by scripts/config_reference.py -->\n"
END = "<!-- end of the keys of config.json -->\n"
SCHEMA_FILE = _ROOT / "docs" / "config.schema.json"


def with_table(text: str) -> str:
    """Return the page's `text` with the current table between the markers."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{_table()}{END}{after}"


def schemas_by_name() -> dict[str, dict[str, Any]]:
    """The JSON Schema of every key, by its full name, such as `engine.slots`."""
    return {
        f"{section}.{key}" if section else key: schema
        for section, schemas in key_schemas().items()
        for key, schema in schemas.items()
    }


def _table() -> str:
    rows = ["| key | value | |", "|---|---|---|"]
    for name, schema in schemas_by_name().items():
        value = schema["errorMessage"].removeprefix("must be ")
        rows.append(f"| `{name}` | {value} | {schema['description']} |")
    return "\n".join(rows) + "\n"


def schema_text() -> str:
    """The JSON Schema of a `config.json`."""
    schema = ModelConfig.model_json_schema()
    sections = schema["$defs"]
    for section in (schema, *sections.values()):
        section.pop("description", None)  # a docstring for programmers
        section["properties"] = {key: _or_null(each) for key, each in section["properties"].items()}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    schema |= {"title": "config.json of a model in MyLLM"}
    return json.dumps(head | schema, indent=2, ensure_ascii=False) + "\n"


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Accept null for a key, which means the same as leaving it out."""
    texts = {key: schema.pop(key) for key in ("description", "errorMessage")}
    schema.pop("title", None)
    schema.pop("default", None)
    values = schema.get("anyOf", [schema])
    null = {"type": "null"}
    return texts | {"anyOf": values if null in values else [*values, null]}


def main() -> None:
    PAGE.write_text(with_table(PAGE.read_text("utf-8")), "utf-8")
    SCHEMA_FILE.write_text(schema_text(), "utf-8")


if __name__ == "__main__":
    main()
