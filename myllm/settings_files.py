"""The files that settings come from, and the unknown names in them."""

from __future__ import annotations

import difflib
import io
import os
import re
import stat
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from platformdirs import PlatformDirs

from myllm.errors import InvalidSettings
from myllm.settings_types import expanded

PREFIX = "MYLLM_"
_LARGEST_BYTES = 2**20
# MYLLM_ variables that are not settings: used by the settings' own reader, scripts and examples.
_OTHERS = frozenset({"MYLLM_CONFIG", "MYLLM_PYTHON", "MYLLM_URL"})
# Variables that Kubernetes and Docker set for containers that may use a service named "myllm".
_SERVICE_LINK = re.compile(r"MYLLM_(SERVICE_(HOST|PORT)\w*|PORT_\d+_(TCP|UDP)\w*|NAME)")
_LINKED_PORT = re.compile(r"(tcp|udp)://\S+:\d+")


def config_file() -> Path:
    """The TOML file with settings; it need not exist. Raises InvalidSettings."""
    named = os.environ.get("MYLLM_CONFIG")
    if not named:
        return PlatformDirs("myllm", appauthor=False).user_config_path / "config.toml"
    try:
        return expanded(Path(named))
    except ValueError as wrong:
        raise InvalidSettings(f"setting MYLLM_CONFIG: {wrong}") from None


def read_text(path: Path) -> str | None:
    """The text of a settings file; None if it does not exist.

    Raises InvalidSettings if it is not a regular file (and never waits for a FIFO's writer), cannot
    be read, is larger than 1 MiB or is not UTF-8.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as failure:
        raise _unusable(path, f"cannot be read: {failure.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            if os.path.realpath(path) == os.devnull:
                return ""
            raise _unusable(path, "is not a regular file")
        content = os.read(handle, _LARGEST_BYTES + 1)
    except OSError as failure:
        raise _unusable(path, f"cannot be read: {failure.strerror}") from None
    finally:
        os.close(handle)
    if len(content) > _LARGEST_BYTES:
        raise _unusable(path, "is larger than 1 MiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _unusable(path, "is not UTF-8 text") from None


def read_toml(path: Path) -> dict[str, Any]:
    """The values in a TOML file; empty if it does not exist. Raises InvalidSettings."""
    try:
        return tomllib.loads(read_text(path) or "")
    except tomllib.TOMLDecodeError as wrong:
        raise _unusable(path, f"is not valid TOML: {wrong}") from None


def load_env_file(path: Path) -> frozenset[str]:
    """Add the variables of the file, lines `NAME=value`, to the environment, without replacing any.
    Returns the names of those that were added.

    Raises InvalidSettings, also if the file does not exist."""
    from dotenv import dotenv_values  # late: few starts need it
    from dotenv.parser import parse_stream

    text = read_text(path)
    if text is None:
        raise _unusable(path, "does not exist")
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or (binding.key is not None and binding.value is None):
            raise _unusable(path, f"line {binding.original.line} is not of the form NAME=value")
    added = set()
    for name, value in dotenv_values(stream=io.StringIO(text)).items():
        if value is not None and "\0" not in name + value and name not in os.environ:
            os.environ[name] = value
            added.add(name)
    return frozenset(added)


def forget_service_link() -> None:
    """Drop a MYLLM_PORT that Kubernetes or Docker has set for a service named "myllm"."""
    if _LINKED_PORT.fullmatch(os.environ.get("MYLLM_PORT", "")):
        del os.environ["MYLLM_PORT"]


def unknown_names(
    known: Collection[str], environment: Mapping[str, str], toml: Mapping[str, Any], path: Path
) -> Iterator[str]:
    """A sentence for each variable in the environment, and each key of the TOML file `path`, that
    is not a setting; `known` are the settings' names, in lower case and without prefix."""
    for name in sorted(environment):
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper in _OTHERS or _SERVICE_LINK.fullmatch(upper):
            continue
        short = upper.removeprefix(PREFIX).lower()
        if short not in known:
            nearest = f"{PREFIX}{_nearest(short, known).upper()}"
            yield f"{name} is not a setting; did you mean {nearest}?"
    for key in toml:
        if key not in known:
            yield f"'{key}' in {path} is not a setting; did you mean '{_nearest(key, known)}'?"


def _nearest(name: str, known: Collection[str]) -> str:
    return difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.0)[0]


def _unusable(path: Path, why: str) -> InvalidSettings:
    return InvalidSettings(f"the settings file {path} {why}")
