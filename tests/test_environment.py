"""The virtual environment that the scripts make, here for a project of one file."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.serving import wait_until

ROOT = Path(__file__).parent.parent
# A build backend for pip whose wheel contains only its metadata.
_BACKEND = """
import zipfile
def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "myllm-1.0-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        about = "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        wheel.writestr("myllm-1.0.dist-info/WHEEL", about)
        metadata = "Metadata-Version: 2.1\\nName: myllm\\nVersion: 1.0\\n"
        wheel.writestr("myllm-1.0.dist-info/METADATA", metadata)
        wheel.writestr("myllm-1.0.dist-info/RECORD", "")
    return name
"""
_PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
NO_PYTHON = "error: Python 3.11 or newer is needed; install it, or name one in MYLLM_PYTHON\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout with the real script, whose installation needs no package index."""
    folder = tmp_path / "project"
    (folder / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts/environment.sh", folder / "scripts")
    (folder / "backend.py").write_text(_BACKEND)
    (folder / "pyproject.toml").write_text(_PROJECT)
    for lock in ("requirements.lock", "requirements-test.lock"):
        (folder / lock).write_text("")
    return folder


def source(project: Path, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    """Source the script like the other scripts; `python` is for a new environment."""
    command = f"set -euo pipefail; . {project}/scripts/environment.sh; ensure_environment run"
    return subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "PIP_NO_INDEX": "1", "MYLLM_PYTHON": python},
        capture_output=True, text=True, timeout=150,
    )  # fmt: skip


@pytest.mark.more
def test_a_second_setup_names_the_process_it_waits_for(project: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow-python"
    slow.write_text(f'#!/bin/sh\n[ "$1" = -m ] && sleep 3\nexec {sys.executable} "$@"\n')
    slow.chmod(0o755)
    with ThreadPoolExecutor(2) as both:
        first = both.submit(source, project, str(slow))
        wait_until(lambda: (project / ".venv.lock").exists(), 30, "the first setup")
        second = both.submit(source, project)
    assert first.result().returncode == second.result().returncode == 0
    waited = rf"Another process \(pid \d+\) sets up {project}/.venv; waiting for it \.\.\.\n"
    assert re.fullmatch(waited, second.result().stderr), second.result().stderr


def ensure(project: Path) -> str:
    """Set up the environment; return its stderr."""
    done = source(project)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.full
def test_the_environment_is_rebuilt_after_a_move_and_for_another_python(project: Path) -> None:
    programs = project / ".venv/bin"
    programs.mkdir(parents=True)
    (programs / "python").symlink_to(Path(sys.executable).resolve())
    (programs / "pip").write_text("#!/where/it/was/.venv/bin/python\n")
    assert "Setting up" in ensure(project)
    subprocess.run([programs / "pip", "--version"], check=True, timeout=60)
    assert ensure(project) == ""

    upgraded = programs / "python"
    upgraded.unlink()
    upgraded.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.99.1\n')
    upgraded.chmod(0o755)
    done = source(project, python="no-python")
    assert (done.returncode, done.stderr) == (1, NO_PYTHON)
