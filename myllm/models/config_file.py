"""Reading a model's `config.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from myllm.errors import InvalidModel
from myllm.models.config import ModelConfig, key_schemas
from myllm.models.read_errors import unreadable

_MAX_BYTES: Final = 1 << 20


def read_config(path: Path) -> ModelConfig:
    """Read `path`; a missing file counts as an empty one, and a key that is null as left out.

    Unknown keys are ignored at the top level, where other programs may keep theirs, and refused
    in `parameters` and `engine`, where they are typing errors. Raises InvalidModel, naming the
    file, the key and what is allowed.
    """
    try:
        return ModelConfig.model_validate(_read_json(path))
    except ValidationError as failure:
        raise InvalidModel(f"{path}: {_first_problem(failure)}") from None


def _first_problem(failure: ValidationError) -> str:
    """Name the first wrong key, and what it may be."""
    error = failure.errors(include_url=False)[0]
    schemas = key_schemas()
    first, *inside = (str(part) for part in error["loc"])
    section, key = (first, inside[0]) if inside and first in schemas else ("", first)
    full_name = f"{section}.{key}" if section else key
    if error["type"] == "extra_forbidden":
        return f"{full_name} is unknown; known are {', '.join(schemas[section])}"
    return f"{full_name} {schemas[section][key]['errorMessage']}"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.exists() and not path.is_file():  # to open a pipe would wait for its writer
            raise InvalidModel(f"{path} is not a regular file")
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as failure:
        raise unreadable(path, failure) from failure
    if len(raw) > _MAX_BYTES:
        raise InvalidModel(f"{path} is larger than 1 MiB, too large to be a configuration")
    try:
        content = json.loads(raw, parse_constant=_refuse_constant)
        # JSON can spell half of a surrogate pair, which no answer could repeat.
        json.dumps(content, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as failure:
        raise InvalidModel(f"{path} is not valid JSON: {failure}") from failure
    if not isinstance(content, dict):
        raise InvalidModel(f"{path} must hold a JSON object")
    return content


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not valid JSON")
