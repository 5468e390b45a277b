"""The types of settings, and how each is parsed from a text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

from myllm.durations import parse_duration

Duration = Annotated[float, BeforeValidator(parse_duration)]
"""Seconds, read from a number or a text such as `5m`; negative: forever."""


def _split(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",") if part.strip()]


_ORIGIN: Final = re.compile(
    r"""
    [a-z][a-z0-9+.-]*://
    (\* | (\*\.)?[^/\s:*\[\]]+ | \[[0-9a-f:.]+\])  # any host, one or all below it, or of IPv6
    (:([0-9]{1,5} | \*))?
    """,
    re.VERBOSE,
)


def _origin(value: str) -> str:
    """The origin as browsers write it; raises ValueError for what would never match one."""
    origin = value.lower().removesuffix("/")
    if origin not in ("*", "null") and not _ORIGIN.fullmatch(origin):
        raise ValueError(
            f"'{value}' must be scheme://host or scheme://host:port, such as https://a.example; a "
            "* may stand for the whole host, for names before it (https://*.a.example) and for the "
            "port (http://localhost:*)"
        )
    return origin


Origin = Annotated[str, AfterValidator(_origin)]
"""The origin of web pages, or a pattern: `*` as the host stands for any, `*.` before it for all
names below it, and `*` as the port for any or none. `*` alone is every origin."""


def _url_path(value: str) -> str:
    """The path with a slash in front and none at the end; raises ValueError if it is not a path."""
    path = f"/{value.strip('/')}" if value.strip("/") else ""
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", path):
        raise ValueError("must be a path, such as /llm")
    return path


UrlPath = Annotated[str, AfterValidator(_url_path)]
"""The path of a URL, such as `/llm`; empty for the root."""

_Item = TypeVar("_Item")
Listed = Annotated[tuple[_Item, ...], NoDecode, BeforeValidator(_split)]
"""Several values; in the environment, separated by commas."""


def expanded(path: Path) -> Path:
    """The path with `~` replaced by the home directory; raises ValueError if that is not known."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"the home directory in '{path}' is not known") from None


def _expanded_url(url: str) -> str:
    """Expand `~` in the path of an SQLite URL."""
    scheme, slashes, path = url.partition(":///")
    if scheme.startswith("sqlite") and path.startswith("~"):
        return f"{scheme}{slashes}{expanded(Path(path))}"
    return url


FilePath = Annotated[Path, AfterValidator(expanded)]
"""A path in which `~` stands for the home directory."""

DatabaseUrl = Annotated[str, AfterValidator(_expanded_url)]
"""The same for the path in SQLite's URL."""
