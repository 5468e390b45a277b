"""Which llama-server is used: the setting's, else one in the cache, else a recent one on PATH.

An engine that failed the self-check on this CPU is skipped.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from myllm.engine.cache import compiled_engines
from myllm.engine.engine import Engine, Origin
from myllm.engine.pinned_source import load_pin
from myllm.engine.probe import identify_once
from myllm.engine.selfcheck_result import Verdicts
from myllm.engine.source import find_source
from myllm.errors import EngineError, EngineMissing
from myllm.settings import Settings


def find_engine(settings: Settings) -> Engine | None:
    """The engine to run, or None when one has to be compiled.

    An engine that failed the self-check on this CPU is skipped; one that was never checked is not.
    Finding a compiled one starts no process. Raises EngineMissing when MYLLM_LLAMA_SERVER does not
    name a llama-server.
    """
    verdicts = Verdicts(settings)
    for engine in candidate_engines(settings):
        verdict = verdicts.get(engine)
        if verdict is None or verdict.passed:
            return engine
    return None


def candidate_engines(settings: Settings) -> Iterator[Engine]:
    """Every engine that could be run, the preferred one first, whatever the self-check found.

    Raises EngineMissing when MYLLM_LLAMA_SERVER does not name a llama-server.
    """
    if settings.llama_server is not None:
        yield _from_setting(settings.llama_server.absolute(), settings.cache_dir)
    yield from compiled_engines(settings.cache_dir, find_source(settings).id)
    if settings.llama_source is not None:
        return  # a user who names a source does not want the engine on PATH
    with contextlib.suppress(EngineError):
        on_path = engine_on_path(settings)
        if on_path is not None:
            yield on_path


def engine_on_path(settings: Settings) -> Engine | None:
    """The llama-server on PATH, or None. Raises EngineError if it cannot be used."""
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
