"""The base of schemas in which null means absent, as in the servers whose dialects these are."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, model_validator


class Lenient(BaseModel):
    """An object in a request: a field that is null has its default."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        """Clients of typed languages write every optional field, with null for what is not set."""
        if isinstance(given, dict) and None in given.values():
            return {name: value for name, value in given.items() if value is not None}
        return given
