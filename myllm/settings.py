"""Every setting once, with its description.

Sources, strongest first: command-line options, environment (`MYLLM_*`), the file named by
`--env-file`, `config.toml` in the user's configuration directory (or the file named by
`MYLLM_CONFIG`), the defaults here. A test checks that the table in docs/settings.md lists each.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from platformdirs import PlatformDirs
from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from myllm.errors import InvalidSettings
from myllm.settings_files import (
    PREFIX,
    config_file,
    forget_service_link,
    read_toml,
    unknown_names,
)
from myllm.settings_network import NetworkSettings
from myllm.settings_types import DatabaseUrl, Duration, FilePath

SECRET = frozenset({"admin_key", "api_key", "database_url"})
_DIRS = PlatformDirs("myllm", appauthor=False)


class Settings(NetworkSettings):
    """The whole configuration; the fields of the network come first.

    Sizes are in the unit their name ends with, times in seconds.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True
    )

    models_dir: FilePath = Field(
        default_factory=lambda: _DIRS.user_data_path / "models",
        description="Folder with one sub-folder per model.",
    )
    data_dir: FilePath = Field(
        default_factory=lambda: _DIRS.user_data_path,
        description="Conversations, and the saved states that make their next turn fast.",
    )
    database_url: DatabaseUrl | None = Field(
        None,
        description="Where conversations are stored: `sqlite:///PATH` or "
        "`postgresql://user:password@host/name`; default: `myllm.db` in the data folder.",
    )
    kv_cache_mb: int | None = Field(
        None,
        ge=0,
        description="MiB of disk for saved states of conversations; 0: none are saved; default: a "
        "tenth of the free space and of what they hold now.",
    )
    session_max_age: Duration | None = Field(
        None,
        description="How long a conversation is kept after its last turn: seconds or `90d`; "
        "default: forever.",
    )
    session_max_count: int | None = Field(
        None,
        ge=1,
        description="Conversations kept for each key, the most recently used ones; default: all.",
    )
    session_max_mb: float | None = Field(
        None,
        gt=0,
        description="MiB of text kept for each key, in the most recently used conversations; "
        "default: all.",
    )
    cache_dir: FilePath = Field(
        default_factory=lambda: _DIRS.user_cache_path,
        description="Compiled engines, their build trees and downloaded sources.",
    )
    state_dir: FilePath = Field(
        default_factory=lambda: _DIRS.user_state_path,
        description="Engine logs and measured figures that outlive a run.",
    )
    runtime_dir: FilePath | None = Field(
        None,
        description="Private directory (mode 0700) for the engines' Unix sockets; "
        "default: the user's runtime directory, or one in the temporary directory.",
    )
    llama_server: FilePath | None = Field(
        None, description="A llama-server to use instead of finding or compiling one."
    )
    llama_source: FilePath | None = Field(
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
        "-1: forever.",
    )
    max_loaded_models: int | None = Field(
        None, ge=1, description="Engines that may run at once, whatever fits; default: any number."
    )
    hang_timeout: float = Field(
        60.0,
        gt=0,
        description="Seconds without any answer, or without token, progress and work, before an "
        "engine that a request waits for is replaced.",
    )
    stop_grace: float = Field(
        3.0, ge=0, description="Seconds between SIGTERM and SIGKILL when an engine is stopped."
    )
    drain_grace: float = Field(
        5.0, ge=0, description="Seconds that running answers get when the server is stopped."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest severity that is logged."
    )
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="`text` for people, `json` for machines; `auto`: text on a terminal."
    )

    def database(self) -> str:
        """The URL of the database of conversations."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute()}/myllm.db"

    def kv_dir(self) -> Path:
        """Where states of conversations are saved."""
        return self.data_dir.absolute() / "kv"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        toml = InitSettingsSource(settings_cls, read_toml(config_file()))
        return init_settings, env_settings, toml


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; `overrides` whose value is None are ignored.

    Raises InvalidSettings, which names each wrong setting and where it was set.
    """
    forget_service_link()
    given = {key: value for key, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as wrong:
        raise InvalidSettings("; ".join(_why(each, given) for each in wrong.errors())) from None


def unknown_settings() -> list[str]:
    """A sentence for each name in the environment and in `config.toml` that is not a setting."""
    path = config_file()
    return list(unknown_names(Settings.model_fields, os.environ, read_toml(path), path))


def _why(problem: ErrorDetails, given: Mapping[str, Any]) -> str:
    """What is wrong with a setting, and where it was set."""
    name = str(problem["loc"][0])
    variable = f"{PREFIX}{name.upper()}"
    if name in given:
        where = f"--{name.replace('_', '-')}"
    elif variable in map(str.upper, os.environ):
        where = f"setting {variable}"
    else:
        where = f"setting '{name}' in {config_file()}"
    # A secret does not belong on a screen.
    value = "" if name in SECRET else f" (got {problem['input']!r})"
    return f"{where}: {problem['msg'].removeprefix('Value error, ')}{value}"
