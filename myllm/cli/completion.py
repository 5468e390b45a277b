"""What the shell offers on Tab: names of models and ids of sessions.

It prints nothing else, whatever goes wrong, and imports little, since it runs at every Tab.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import typer

from myllm.escaping import on_one_line

if TYPE_CHECKING:
    from myllm.settings import Settings

_PATIENCE_S = 0.2
_MAX_IDS = 500
_PLAIN = re.compile(r"[\w./:@+-]+")
# Characters that a shell, or typer's own markup, may interpret.
_SPECIAL = re.compile(r"[\[\]\\$`\"']")
# The owner of all sessions on a server without keys, as in `api/http/access.py`.
_OWNER = "local"


def complete_model(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names and aliases of the models on disk and of the running server."""
    try:
        names = _model_names(_settings(ctx))
        return sorted({name for name in names if name.startswith(incomplete) and _is_plain(name)})
    except Exception:  # noqa: BLE001 - a shell would show it within the command line
        return []


def complete_session(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Ids and titles of the most recent sessions."""
    try:
        found = _sessions(_settings(ctx), incomplete)
        fitting = (each for each in found if each[0].startswith(incomplete) and _is_plain(each[0]))
        return [(id_, _SPECIAL.sub(" ", on_one_line(title))) for id_, title in fitting]
    except Exception:  # noqa: BLE001 - as above
        return []


def _is_plain(word: str) -> bool:
    """Whether a shell treats `word` as plain text."""
    return _PLAIN.fullmatch(word) is not None


def _settings(ctx: typer.Context) -> Settings:
    from myllm.settings import load_settings
    from myllm.settings_files import load_env_file

    before = ctx.find_root().params  # the options before the command
    if before.get("env_file") is not None:
        load_env_file(before["env_file"])
    return load_settings(models_dir=before.get("models_dir"))


def _model_names(settings: Settings) -> Iterator[str]:
    from myllm.errors import InvalidModel
    from myllm.models.config_file import read_config
    from myllm.models.model import CONFIG
    from myllm.models.registry import Registry

    registry = Registry(settings.models_dir)
    for name in registry.names():
        yield name
        with suppress(InvalidModel):  # reads config.json only, not the GGUF
            yield from read_config(registry.models_dir / name / CONFIG).aliases
    for model in (_get(settings, "/api/models") or {}).get("models", ()):
        yield model["name"]
        yield from model.get("aliases", ())


def _sessions(settings: Settings, beginning: str) -> list[tuple[str, str]]:
    page = _get(settings, f"/api/sessions?limit={_MAX_IDS}")
    if page is not None:
        return [(one["id"], one["title"]) for one in page["sessions"]]
    from myllm.sessions.completion_query import latest_ids

    return latest_ids(settings.database(), _OWNER, beginning, _MAX_IDS)


def _get(settings: Settings, path: str) -> Any:
    """The answer of the running server, or None. Not by httpx, which takes too long to import."""
    import http.client
    import urllib.parse

    from myllm.cli.client import base_url, key_header, tls_to

    address, tls = urllib.parse.urlsplit(base_url(settings)), tls_to(settings)
    where = address.hostname or "", address.port
    if tls is None:
        connection = http.client.HTTPConnection(*where, timeout=_PATIENCE_S)
    else:
        connection = http.client.HTTPSConnection(*where, timeout=_PATIENCE_S, context=tls)
    try:
        for asked in ("/", path):  # only MyLLM gets the key
            headers = {} if asked == "/" else key_header(settings)
            connection.request("GET", asked, headers=headers)
            answer = json.loads(connection.getresponse().read())
            if asked == "/" and answer["name"] != "MyLLM":
                return None
    except OSError:
        return None
    finally:
        connection.close()
    return answer
