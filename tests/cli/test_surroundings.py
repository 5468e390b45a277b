"""Every command in bad environments ends with a sentence and an exit code, without a traceback."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from myllm.engine.engine import Engine
from tests.cli.surroundings import AS_ROOT, SURROUNDINGS, Ended, Start, commands, harmless, run

COMMANDS = commands()
# 0, failed, usage, interrupted, output reader gone.
CODES = {0, 1, 2, 130, 141}


def check(ended: Ended, name: str) -> str | None:
    """What is wrong with the way it ended; None if nothing is."""
    said = ended.output + ended.errors
    faults = [
        each
        for each in ("Traceback", "Exception ignored", "internal error", "Error in sys.excepthook")
        if each in said
    ]
    if ended.code not in CODES:
        faults.append(f"exit code {ended.code}")
    quiet = name.endswith(("closed", "all output is full")) or ended.code == 141
    if ended.code and not quiet and not ended.errors and not ended.output:
        faults.append("no error is told")
    if faults:
        return f"{name}: myllm {ended.command}: {faults}\n{said}"
    return None


def check_all(folder: Path, pairs: list[tuple[str, tuple[str, ...]]]) -> None:
    """Two at a time; each has a home of its own."""

    def one(number: int) -> str | None:
        name, command = pairs[number]
        home = folder / str(number)
        home.mkdir()
        how = SURROUNDINGS.get(name) or AS_ROOT[name]
        return check(run(harmless(command), how(Start(home))), name)

    with ThreadPoolExecutor(2) as pool:
        faults = [fault for fault in pool.map(one, range(len(pairs))) if fault]
    assert not faults, "\n\n".join(faults)


@pytest.mark.more
def test_every_command_and_every_environment_once(tmp_path: Path) -> None:
    """The fewest pairs that cover every command and every environment; the whole matrix takes
    minutes."""
    names = list(SURROUNDINGS)
    count = max(len(names), len(COMMANDS))
    pairs = [(names[i % len(names)], COMMANDS[i % len(COMMANDS)]) for i in range(count)]
    check_all(tmp_path, pairs)


@pytest.mark.more
@pytest.mark.parametrize("name", list(SURROUNDINGS))
def test_every_command_in(tmp_path: Path, name: str) -> None:
    check_all(tmp_path, [(name, command) for command in COMMANDS])


@pytest.mark.more
@pytest.mark.needs_root
@pytest.mark.parametrize("name", list(AS_ROOT))
def test_every_command_as(tmp_path: Path, name: str) -> None:
    tmp_path.chmod(0o777)
    check_all(tmp_path, [(name, command) for command in COMMANDS])


@pytest.mark.more
@pytest.mark.parametrize("name", list(SURROUNDINGS))
def test_a_question_in(tmp_path: Path, engine: Engine, name: str) -> None:
    """With an engine `run` gets further: it makes sockets, logs and the store."""
    start = SURROUNDINGS[name](Start(tmp_path))
    variables = {"MYLLM_LLAMA_SERVER": str(engine.server), **start.variables}
    question = ("run", "demo", "What is the capital of France?")
    ended = run(question, replace(start, variables=variables))
    fault = check(ended, name)
    assert not fault, fault
    if ended.code == 0 and name not in ("stdout is closed", "all streams are closed"):
        assert ended.output.strip()
