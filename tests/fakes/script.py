"""Scripts for `MYLLM_LLAMA_SERVER` that run a fake in front of the real llama-server."""

from __future__ import annotations

import sys
from pathlib import Path

from myllm.engine.engine import Engine

_ROOT = Path(__file__).parent.parent.parent


def damaging(engine: Engine, home: Path) -> Path:
    """A script for `damages_answers`: the file `home / "fault"` names the damage of the next
    stream."""
    return _script(engine, home, f"damages_answers {engine.server} {home}/fault")


def mortal(engine: Engine, home: Path) -> Path:
    """A script for `dies_of_poison`."""
    return _script(engine, home, f"dies_of_poison {engine.server}")


def _script(engine: Engine, home: Path, fake: str) -> Path:
    script = home / "llama-server"
    script.write_text(
        f'#!/bin/sh\ncase "$1" in --version|--list-devices) exec {engine.server} "$@";; esac\n'
        f'cd {_ROOT} && exec {sys.executable} -m tests.fakes {fake} "$@"\n'
    )
    script.chmod(0o755)
    return script
