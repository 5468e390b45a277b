"""Finding or compiling an engine that passes the self-check on this CPU."""

from __future__ import annotations

from myllm.engine.build_options import BuildOptions, with_fewer_instructions
from myllm.engine.engine import Engine
from myllm.engine.find import candidate_engines, find_engine
from myllm.engine.progress import Progress, ProgressListener, no_progress
from myllm.engine.selfcheck_result import Verdict, Verdicts
from myllm.errors import BuildFailed
from myllm.settings import Settings


def proven_engine(settings: Settings) -> Engine | None:
    """The preferred engine, if it has already passed the self-check; takes milliseconds."""
    engine = find_engine(settings)
    verdict = Verdicts(settings).get(engine) if engine is not None else None
    return engine if verdict is not None and verdict.passed else None


def ensure_engine(settings: Settings, progress: ProgressListener = no_progress) -> Engine:
    """The first engine found that passes the self-check, else one that is compiled and passes.

    A `note` names each engine that fails. Raises EngineMissing for an unusable setting, and
    BuildFailed when no engine can be compiled or no compiled one works.
    """
    for engine in candidate_engines(settings):
        verdict = _check_once(settings, engine, progress)
        if verdict.passed:
            return engine
        _note_failure(engine, verdict, progress)
    return build_proven(settings, BuildOptions(), progress)


def build_proven(
    settings: Settings, options: BuildOptions, progress: ProgressListener = no_progress
) -> Engine:
    """An engine of `options` that passes the self-check, with fewer instruction sets if necessary.

    Raises BuildFailed when it cannot be compiled, or fails with every set of instructions.
    """
    # A start with a finished engine does not need the modules for compiling.
    from myllm.engine.build import build_engine

    next_options: BuildOptions | None = options
    while next_options is not None:
        engine = build_engine(settings, next_options, progress)
        verdict = _check_once(settings, engine, progress)
        if verdict.passed:
            return engine
        _note_failure(engine, verdict, progress)
        next_options = with_fewer_instructions(next_options)
    raise BuildFailed(
        f"The compiled engine does not work on this CPU: {verdict.summary()}. Try another "
        "compiler (CC and CXX name one), or let MYLLM_LLAMA_SERVER name an engine that works"
    )


def check_again(
    settings: Settings, engine: Engine, progress: ProgressListener = no_progress
) -> Verdict:
    """Run the self-check even if `engine` was checked before, and store the result."""
    from myllm.engine.selfcheck import check_engine

    verdict = check_engine(engine, progress)
    Verdicts(settings).keep(engine, verdict)
    return verdict


def _check_once(settings: Settings, engine: Engine, progress: ProgressListener) -> Verdict:
    known = Verdicts(settings).get(engine)
    return check_again(settings, engine, progress) if known is None else known


def _note_failure(engine: Engine, verdict: Verdict, progress: ProgressListener) -> None:
    progress(
        Progress(
            "note",
            detail=f"{engine.server} is not used, because it does not work on this CPU: "
            f"{verdict.summary()}",
        )
    )
