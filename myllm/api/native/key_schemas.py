"""The bodies and answers of the routes about API keys."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from myllm.api.shared.bounded import Name, Whole
from myllm.api.shared.timestamps import iso
from myllm.sessions.keys import Key, Role

_RULES = (
    *("role", "models", "requests_per_minute", "tokens_per_minute", "concurrent_requests"),
    *("max_priority", "expires_at", "disabled"),
)
_EXAMPLE: dict[str, Any] = {
    "name": "ann",
    "role": "user",
    "models": ["qwen*", "demo"],
    "requests_per_minute": 60,
    "tokens_per_minute": None,
    "concurrent_requests": 2,
    "max_priority": 0,
    "expires_at": "2027-01-31T00:00:00.000+00:00",
    "disabled": False,
    "created_at": "2026-11-30T08:00:00.000+00:00",
    "last_used_at": None,
    "state": "active",
}
_KEY = "sk-myllm-Zk3…"


def _moment(value: object) -> float | None:
    """Seconds since 1970 of a time as the API writes it."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(str(value))
        if moment.tzinfo is not None:
            return moment.timestamp()
    except (ValueError, OverflowError):
        pass
    raise ValueError('must be a time with its zone, such as "2027-01-31T00:00:00Z"')


Moment = Annotated[
    float | None,
    BeforeValidator(_moment),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}),
]
Patterns = Annotated[list[Name], Field(max_length=256, fail_fast=True)]
Limit = Annotated[Whole | None, Field(json_schema_extra={"minimum": 1})]


class _Known(BaseModel):
    """A body that has no unknown fields, since a misspelled limit would be none."""

    @model_validator(mode="before")
    @classmethod
    def _no_others(cls, body: Any) -> Any:
        for name in body if isinstance(body, dict) else ():
            if name not in cls.model_fields:
                known = ", ".join(cls.model_fields)
                raise ValueError(f"Unknown field '{name[:64]}'; the fields are {known}")
        return body


class NewKeyRequest(_Known):
    """A key to create, and what it may do."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"name": "ann", "models": ["qwen*"], "requests_per_minute": 60}
        }
    )

    name: Name = Field(description="Whose key it is: letters and digits of any script, . _ - @")
    sha256: str | None = Field(
        None,
        max_length=64,
        pattern="^[0-9a-fA-F]{64}$",
        description="The SHA-256 of a key that exists already; default: a new key is made.",
    )
    role: Role = Field("user", description="user: use models; admin: all; metrics: GET /metrics.")
    models: Patterns = Field(
        [], description="Names, aliases and patterns (`qwen*`) of its models; empty: all."
    )
    requests_per_minute: Limit = Field(None, description="null: any number.")
    tokens_per_minute: Limit = Field(None, description="Of prompts and answers; null: any number.")
    concurrent_requests: Limit = Field(None, description="null: any number.")
    max_priority: Whole = Field(0, description="Highest `priority` of its requests, -10 to 10.")
    expires_at: Moment = Field(None, description="When it stops working; null: never.")
    disabled: bool = Field(False, description="Whether requests with it are refused.")


class KeyChanges(_Known):
    """What shall change; fields that are left out stay as they are."""

    model_config = ConfigDict(json_schema_extra={"example": {"requests_per_minute": 60}})

    role: Role | None = Field(None, description="user, admin or metrics.")
    models: Patterns | None = Field(None, description="Names, aliases and patterns; empty: all.")
    requests_per_minute: Limit = Field(None, description="null: any number.")
    tokens_per_minute: Limit = Field(None, description="null: any number.")
    concurrent_requests: Limit = Field(None, description="null: any number.")
    max_priority: Whole | None = Field(None, description="-10 to 10.")
    expires_at: Moment = Field(None, description="null: never.")
    disabled: bool | None = Field(None, description="Whether requests with it are refused.")

    @field_validator("role", "models", "max_priority", "disabled")
    @classmethod
    def _not_null(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("must not be null; leave it out to keep it as it is")
        return value


class ShownKey(BaseModel):
    """A key; neither itself nor its hash can be shown."""

    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE})

    name: str = Field(description="Whose key it is.")
    role: Role = Field(description="user, admin or metrics.")
    models: list[str] = Field(description="Names, aliases and patterns of its models; empty: all.")
    requests_per_minute: int | None = Field(description="null: any number.")
    tokens_per_minute: int | None = Field(description="null: any number.")
    concurrent_requests: int | None = Field(description="null: any number.")
    max_priority: int = Field(description="Highest `priority` of its requests.")
    expires_at: str | None = Field(description="When it stops working; null: never.")
    disabled: bool = Field(description="Whether requests with it are refused.")
    created_at: str = Field(description="When it was created.")
    last_used_at: str | None = Field(description="At most a minute old; null: never.")
    state: Literal["active", "disabled", "expired"] = Field(description="Whether it works now.")


class ChangedKey(ShownKey):
    """A key after a change."""

    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE | {"warnings": []}})

    warnings: list[str] = Field(description="Patterns that no model here matches.")


class NewKey(ChangedKey):
    """A key that was created or got a new secret."""

    model_config = ConfigDict(
        json_schema_extra={"example": _EXAMPLE | {"warnings": [], "key": _KEY}}
    )

    key: str | None = Field(
        description="The key itself, which is shown only now; null for one that existed already."
    )


class KeyPage(BaseModel):
    """Some of the keys."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"keys": [_EXAMPLE], "next_cursor": None}}
    )

    keys: list[ShownKey] = Field(description="By name.")
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page.")


def rules_of(body: NewKeyRequest | KeyChanges) -> dict[str, Any]:
    """Return the fields of KeyRules that the body has."""
    given = {name: getattr(body, name) for name in _RULES if name in body.model_fields_set}
    if "models" in given:
        given["models"] = tuple(given["models"])
    if "expires_at" in given:
        given["expires"] = given.pop("expires_at")
    return given


def shown(key: Key, now: float) -> dict[str, Any]:
    """Return the fields of ShownKey."""
    fields = {name: getattr(key, name) for name in _RULES if name != "expires_at"}
    state = "disabled" if key.disabled else "active" if key.is_valid(now) else "expired"
    return {
        "name": key.name,
        **fields,
        "models": list(key.models),
        "expires_at": _iso(key.expires),
        "created_at": iso(key.created),
        "last_used_at": _iso(key.last_used),
        "state": state,
    }


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else iso(seconds)
