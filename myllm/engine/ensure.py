"""An engine, whatever it takes."""

from __future__ import annotations

from myllm.engine.find import find_engine
from myllm.engine.types import Engine, ProgressListener
from myllm.settings import Settings


def ensure_engine(settings: Settings, progress: ProgressListener | None = None) -> Engine:
    """Find an engine, else compile one with the default options.

    Raises EngineMissing for an unusable setting, BuildFailed when it cannot be compiled.
    """
    found = find_engine(settings)
    if found is not None:
        return found
    # Compiling needs modules that a start with a finished engine does not.
    from myllm.engine.build import build_engine

    return build_engine(settings, progress=progress)
