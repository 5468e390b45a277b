"""Which llama-server is used: the setting, else the cache, else PATH if it is recent enough."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from myllm.engine.cache import newest_engine
from myllm.engine.pin import load_pin
from myllm.engine.probe import identify_once
from myllm.engine.source import find_source
from myllm.engine.types import Engine, Origin
from myllm.errors import EngineError, EngineMissing
from myllm.settings import Settings


def find_engine(settings: Settings) -> Engine | None:
    """The engine to run, or None when one has to be compiled.

    A cached one is found without starting a process. Raises EngineMissing when
    MYLLM_LLAMA_SERVER names something that cannot be used: what the user asked for is never
    silently replaced.
    """
    if settings.llama_server is not None:
        return _from_setting(settings.llama_server.expanduser().absolute(), settings.cache_dir)
    cached = newest_engine(settings.cache_dir, find_source(settings).id)
    if cached is not None or settings.llama_source is not None:
        # Whoever names a source wants that one, not what happens to be on PATH.
        return cached
    try:
        return engine_on_path(settings)
    except EngineError:
        return None


def engine_on_path(settings: Settings) -> Engine | None:
    """The llama-server on PATH, or None; EngineError says why the one there is not used."""
    found = shutil.which("llama-server")
    if found is None:
        return None
    engine = _engine(Path(found).absolute(), "path", settings.cache_dir)
    least = load_pin().build
    if engine.build < least:
        raise EngineMissing(
            f"{engine.server} is too old: build {engine.build}, and {least} is the least"
        )
    return engine


def _from_setting(server: Path, cache_dir: Path) -> Engine:
    if not server.exists():
        problem = "does not exist"
    elif server.is_dir():
        problem = "is a folder; name the program in it"
    elif not os.access(server, os.X_OK):
        problem = f"is not executable; try: chmod +x {server}"
    else:
        return _engine(server, "setting", cache_dir)
    raise EngineMissing(f"MYLLM_LLAMA_SERVER: {server} {problem}")


def _engine(server: Path, origin: Origin, cache_dir: Path) -> Engine:
    known = identify_once(server, cache_dir)
    return Engine(server, origin, known.version, known.build, known.commit, known.backends)
