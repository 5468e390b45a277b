"""Every knob once, with its description.

Sources, strongest first: command-line options, environment (`MYLLM_*`), `.env` in the working
directory, `config.toml` in the user's configuration directory (or the file named by
`MYLLM_CONFIG`), the defaults here. A test checks that the README's table lists each of them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from platformdirs import PlatformDirs
from pydantic import AfterValidator, BeforeValidator, Field, IPvAnyNetwork, SecretStr
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from myllm.durations import parse_duration

Duration = Annotated[float, BeforeValidator(parse_duration)]
"""Seconds, read from a number or a text such as `5m`; negative: for ever."""


def _split(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",") if part.strip()]


def _origin(value: str) -> str:
    """As browsers write it; raises ValueError for what no browser would send."""
    origin = value.lower().removesuffix("/")
    if origin not in ("*", "null") and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s]+", origin):
        raise ValueError("must be scheme://host or scheme://host:port, such as https://a.example")
    return origin


_Item = TypeVar("_Item")
Listed = Annotated[tuple[_Item, ...], NoDecode, BeforeValidator(_split)]
"""Several values, in the environment with commas between them."""

_DIRS = PlatformDirs("myllm", appauthor=False)


def config_file() -> Path:
    """The TOML file that settings are read from; it need not exist."""
    named = os.environ.get("MYLLM_CONFIG")
    return Path(named) if named else _DIRS.user_config_path / "config.toml"


class Settings(BaseSettings):
    """The whole configuration. Sizes are in the unit their name ends with, times in seconds."""

    model_config = SettingsConfigDict(
        env_prefix="MYLLM_", env_file=".env", extra="ignore", frozen=True
    )

    host: str = Field(
        "127.0.0.1",
        description="Address that `myllm serve` listens on; `0.0.0.0`: every IPv4 address of the "
        "machine, `::`: every IPv6 and IPv4 address.",
    )
    port: int = Field(8000, ge=0, le=65535, description="Port that `myllm serve` listens on.")
    api_keys_file: Path | None = Field(
        None,
        description="File with a line `name:sha256-of-key` for each key that may ask; default: "
        "everybody may.",
    )
    api_key: SecretStr | None = Field(
        None, description="Key that the command line shows to a running server."
    )
    allowed_hosts: Listed[str] = Field(
        (),
        description="Host names, with commas between them, by which requests may call the server "
        "besides localhost; default: on a loopback address none, elsewhere any.",
    )
    cors_origins: Listed[Annotated[str, AfterValidator(_origin)]] = Field(
        (),
        description="Origins of web pages, with commas between them, that may ask besides the "
        "server's own; `*`: any.",
    )
    trusted_proxies: Listed[IPvAnyNetwork] = Field(
        (),
        description="Addresses or networks, with commas between them, whose `X-Forwarded-For` is "
        "believed.",
    )
    models_dir: Path = Field(
        default_factory=lambda: _DIRS.user_data_path / "models",
        description="Folder with one sub-folder per model.",
    )
    data_dir: Path = Field(
        default_factory=lambda: _DIRS.user_data_path,
        description="Conversations, and the saved states that make their next turn fast.",
    )
    database_url: str | None = Field(
        None,
        description="Where conversations are stored: `sqlite:///PATH` or "
        "`postgresql://user:password@host/name`; default: `myllm.db` in the data folder.",
    )
    kv_cache_mb: int | None = Field(
        None,
        ge=0,
        description="MiB of disk for saved states of conversations; 0: none are saved; default: a "
        "tenth of what is free and what they hold.",
    )
    session_max_age: Duration | None = Field(
        None,
        description="How long a conversation is kept after its last turn: seconds or `90d`; "
        "default: for ever.",
    )
    session_max_count: int | None = Field(
        None, ge=1, description="Conversations that are kept, the last used ones; default: all."
    )
    session_max_mb: float | None = Field(
        None, gt=0, description="MiB of text that is kept, the last used first; default: all."
    )
    strict_isolation: bool = Field(
        False,
        description="Whether a slot is emptied before another key's conversation gets it.",
    )
    cache_dir: Path = Field(
        default_factory=lambda: _DIRS.user_cache_path,
        description="Compiled engines, their build trees and downloaded sources.",
    )
    state_dir: Path = Field(
        default_factory=lambda: _DIRS.user_state_path,
        description="Engine logs and measured figures that outlive a run.",
    )
    runtime_dir: Path | None = Field(
        None,
        description="Private directory (mode 0700) for the engines' Unix sockets; "
        "default: the user's runtime directory, or one in the temporary directory.",
    )
    llama_server: Path | None = Field(
        None, description="A llama-server to use instead of finding or compiling one."
    )
    llama_source: Path | None = Field(
        None, description="A llama.cpp checkout to compile instead of the pinned source."
    )
    context_size: int | None = Field(
        None,
        ge=128,
        description="Tokens one conversation gets when the model's config.json does not say; "
        "never more than the model was trained for; default: by model and memory.",
    )
    slots: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Conversations one model answers at the same time; default: 4, or fewer "
        "when memory is short.",
    )
    memory_budget_mb: int | None = Field(
        None,
        ge=0,
        description="MiB of main memory that all engines together may take; default: all but "
        "the reserve.",
    )
    gpu_budget_mb: int | None = Field(
        None,
        ge=0,
        description="MiB of each GPU's memory that all engines together may take; default: all "
        "but the reserve.",
    )
    memory_reserve_mb: int = Field(
        512, ge=0, description="MiB that are always left free on each device."
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="CPU threads per engine; default: one per core that affinity and CPU quota "
        "leave, fewer for a small model.",
    )
    load_timeout: float = Field(
        600.0, gt=0, description="Seconds a model may take to load before it counts as failed."
    )
    queue_timeout: float = Field(
        300.0, gt=0, description="Seconds a request may wait for a free slot before a 503."
    )
    queue_size: int = Field(
        256, ge=1, description="Requests that may wait per model; one more gets a 429."
    )
    keep_alive: Duration = Field(
        300.0,
        description="How long an idle model stays loaded: seconds or `5m`; 0: not at all, "
        "-1: for ever.",
    )
    max_loaded_models: int | None = Field(
        None, ge=1, description="Engines that may run at once, whatever fits; default: any number."
    )
    hang_timeout: float = Field(
        60.0,
        gt=0,
        description="Seconds without token, progress or CPU time before an engine is restarted.",
    )
    stop_grace: float = Field(
        3.0, ge=0, description="Seconds between SIGTERM and SIGKILL when an engine is stopped."
    )
    drain_grace: float = Field(
        5.0, ge=0, description="Seconds that running answers get when the server is stopped."
    )
    max_body_mb: float = Field(
        16.0, gt=0, description="Largest request body in MiB; a larger one is refused with 413."
    )
    remote_media: bool = Field(
        False,
        description="Whether pictures and sounds may be given as http(s) URLs, which the server "
        "then fetches, from public addresses only.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severity that is logged."
    )
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="`text` for people, `json` for machines; `auto`: text on a terminal."
    )

    def database(self) -> str:
        """The URL of the database of conversations."""
        return self.database_url or f"sqlite:///{self.data_dir.expanduser().absolute()}/myllm.db"

    def kv_dir(self) -> Path:
        """Where states of conversations are saved."""
        return self.data_dir.expanduser().absolute() / "kv"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        toml = TomlConfigSettingsSource(settings_cls, config_file())
        return init_settings, env_settings, dotenv_settings, toml


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; `overrides` whose value is None are left out.

    Raises pydantic's ValidationError, whose text names each wrong setting.
    """
    return Settings(**{key: value for key, value in overrides.items() if value is not None})
