"""A llama-server to be named in `MYLLM_LLAMA_SERVER` that is a fake in front of the real one."""

from __future__ import annotations

import sys
from pathlib import Path

from myllm.engine.types import Engine

_ROOT = Path(__file__).parent.parent.parent


def damaging(engine: Engine, home: Path) -> Path:
    """Makes `damages_answers` of it: what the file `home / "fault"` names becomes of the next
    stream."""
    script = home / "llama-server"
    fake = f"{sys.executable} -m tests.fakes damages_answers {engine.server} {home}/fault"
    script.write_text(
        f'#!/bin/sh\ncase "$1" in --version|--list-devices) exec {engine.server} "$@";; esac\n'
        f'cd {_ROOT} && exec {fake} "$@"\n'
    )
    script.chmod(0o755)
    return script
