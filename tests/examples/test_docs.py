"""Every command on the pages of documentation is run, unless a comment there says why not."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import PAGES, Script, scripts
from tests.serving import Serving, environment

ALL = [script for page in PAGES for script in scripts(page)]
RUN = [script for script in ALL if script.reason is None]


@pytest.fixture(scope="module")
def folder(server: Serving) -> Path:
    """A folder to run in, whose `bin` has this checkout's `myllm` and this Python."""
    folder = server.home / "work"
    (folder / "bin").mkdir(parents=True)
    for name, arguments in (("myllm", " -m myllm"), ("python", "")):
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return folder


@pytest.mark.timeout(300)
@pytest.mark.parametrize("script", RUN, ids=str)
def test_the_commands_of_a_page(server: Serving, folder: Path, script: Script) -> None:
    port = server.url.rpartition(":")[2]
    text = script.script.replace("localhost:8000", f"127.0.0.1:{port}")
    own = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "HOME": str(folder)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env=environment(server.home, port=port, api_key="key") | own | _cache(),
        capture_output=True,
        text=True,
        timeout=250,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    for line in filter(None, script.prints.splitlines()):
        assert line in done.stdout
    if "kill -9" in script.script:
        assert "98, 99, 100." in done.stdout


def _cache() -> dict[str, str]:
    """Where the compiled engine is: `HOME` is another folder, into which a page may write."""
    cache = Path(os.environ.get("MYLLM_CACHE_DIR", Path.home() / ".cache" / "myllm"))
    return {"MYLLM_CACHE_DIR": str(cache)}
