"""Client programs from npm, installed once per machine from the lock files in `node/`."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from filelock import FileLock

from myllm.settings import load_settings

NODE = Path(__file__).parent / "node"
# Enough for 500 MB over a slow line.
_INSTALL_S = 900.0
_CI = ("npm", "ci", "--prefer-offline", "--no-audit", "--no-fund", "--no-update-notifier")


def installed(name: str) -> Path:
    """The `node_modules` of `node/NAME`, in the cache; a second caller waits for the first.

    Its folder is named after the lock file's hash, so an outdated install is never used.
    """
    manifest, lock = (NODE / name / file for file in ("package.json", "package-lock.json"))
    digest = hashlib.sha256(manifest.read_bytes() + lock.read_bytes()).hexdigest()[:12]
    folder = load_settings().cache_dir / "node" / name / digest
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / ".lock", timeout=_INSTALL_S):
        if not folder.exists():
            _install(manifest, lock, folder)
    return folder / "node_modules"


def _install(manifest: Path, lock: Path, folder: Path) -> None:
    """Install beside `folder`, and rename what is whole."""
    with tempfile.TemporaryDirectory(prefix=".installing-", dir=folder.parent) as aside:
        made = Path(aside) / "made"
        made.mkdir()
        for file in (manifest, lock):
            shutil.copy(file, made)
        done = subprocess.run(_CI, cwd=made, capture_output=True, text=True, timeout=_INSTALL_S)
        assert done.returncode == 0, done.stdout + done.stderr
        made.rename(folder)


def project(name: str, folder: Path) -> Path:
    """`folder` with the scripts of `node/NAME` in it, which find that package's modules."""
    shutil.copytree(
        NODE / name, folder, ignore=shutil.ignore_patterns("node_modules"), dirs_exist_ok=True
    )
    (folder / "node_modules").symlink_to(installed(name))
    return folder
