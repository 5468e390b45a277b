"""Pulling a model: download into a staging folder, check, and only then publish it.

`MODELS_DIR/.staging/NAME/` survives an interruption, and the next pull of NAME continues from it.
One rename makes it `MODELS_DIR/NAME/`, so a model appears whole or not at all.
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final

from myllm.errors import InvalidModel, PullFailed
from myllm.models.config_file import read_config
from myllm.models.gguf import read_header
from myllm.models.hub import RemoteFile, checksum_of, download, list_files
from myllm.models.model import CONFIG, Model, load_model
from myllm.models.pull_source import PullSource, choose_files
from myllm.models.registry import Registry

STAGING: Final = ".staging"
_LOCK_S: Final = 6 * 3600.0
_LOOK_S: Final = 1.0

Progress = Callable[[int, int], None]
"""Receives how many bytes have arrived, and of how many."""


@dataclass(frozen=True)
class PullResult:
    """A model that is on disk now; `fresh` is False if it was there before the pull."""

    model: Model
    fresh: bool


def pull(
    registry: Registry,
    wanted: PullSource,
    *,
    force: bool = False,
    on_files: Callable[[Sequence[RemoteFile]], None] = lambda files: None,
    on_progress: Progress = lambda done, total: None,
    say: Callable[[str], None] = lambda sentence: None,
    check: Callable[[], None] = lambda: None,
) -> PullResult:
    """Download `wanted` into the registry's folder and return it.

    An existing model of that name is left alone, unless `force` is set: then it is replaced when
    the new one is complete. `on_files` receives the files to download, in order, and `say` a
    sentence about each longer step. `check` is called while this waits for another pull. An
    exception from any of them ends the pull. Raises PullFailed, and InvalidModel when the hub's
    files are not a usable model.
    """
    models_dir = registry.models_dir
    target = models_dir / wanted.name
    staging = models_dir / STAGING / wanted.name
    try:
        staging.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(staging.with_name(wanted.name + ".lock"), wanted.name, say, check):
            if target.exists() and not force:
                return PullResult(registry.get(wanted.name), fresh=False)
            files = remote_files(wanted)
            on_files(files)
            _stage(staging, files, on_progress, say)
            _write_config(staging, wanted, files[0].commit, target / CONFIG)
            load_model(staging, False, read_header)
            _put_in_place(staging, target)
    except OSError as failure:
        raise PullFailed(f"cannot write to {models_dir}: {failure}") from failure
    return PullResult(registry.get(wanted.name), fresh=True)


@contextmanager
def _only_one(
    lock: Path, name: str, say: Callable[[str], None], check: Callable[[], None]
) -> Iterator[None]:
    """Hold the lock on pulls of `name`; a second one waits for the first."""
    from filelock import FileLock, Timeout

    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        say(f"Another pull of {name} is running; waiting for it")
        give_up = time.monotonic() + _LOCK_S
        while not held.is_locked:
            check()
            with suppress(Timeout):
                held.acquire(timeout=_LOOK_S)
            if time.monotonic() > give_up and not held.is_locked:
                raise PullFailed(f"another pull of {name} still holds {lock}") from None
    try:
        yield
    finally:
        held.release()


def remote_files(wanted: PullSource) -> list[RemoteFile]:
    """The files to download, in order. Raises PullFailed when the hub does not have them."""
    there = {file.name: file for file in list_files(wanted.repo)}
    return [there[name] for name in choose_files(wanted, list(there))]


def _stage(
    staging: Path, files: Sequence[RemoteFile], on_progress: Progress, say: Callable[[str], None]
) -> None:
    """Fill `staging` with exactly `files`, complete and checked.

    The files get their final names when all are complete. Until then each name contains the
    file's version, so parts of two versions are never mixed.
    """
    staging.mkdir(exist_ok=True)
    growing = {file: _growing(staging, file) for file in files}
    _drop_others(staging, set(growing.values()))
    _check_space(staging, growing)
    total = sum(file.size for file in files)
    before = 0
    for file, path in growing.items():
        download(file, path, partial(_add, on_progress, before, total))
        before += file.size
    for file, path in growing.items():
        say(f"Checking {PurePosixPath(file.name).name}")
        _check_sum(file, path)
    for file, path in growing.items():
        path.rename(staging / PurePosixPath(file.name).name)


def _add(on_progress: Progress, before: int, total: int, done: int) -> None:
    on_progress(before + done, total)


def _growing(staging: Path, file: RemoteFile) -> Path:
    version = file.checksum.partition(":")[2][:16]
    return staging / f"{PurePosixPath(file.name).name}.{version}.part"


def _drop_others(staging: Path, kept: set[Path]) -> None:
    """Delete what an older pull of other files has left."""
    for path in set(staging.iterdir()) - kept:
        path.unlink()


def _check_space(staging: Path, growing: Mapping[RemoteFile, Path]) -> None:
    """Raise PullFailed unless the rest of the files fits on the file system."""
    there = sum(path.stat().st_size for path in growing.values() if path.exists())
    needs = sum(file.size for file in growing) - there
    has = shutil.disk_usage(staging).free
    if needs > has:
        raise PullFailed(
            f"not enough disk space in {staging.parent.parent}: needs {needs / 1e6:,.0f} MB,"
            f" has {has / 1e6:,.0f} MB free"
        )


def _check_sum(file: RemoteFile, part: Path) -> None:
    """Delete `part` and raise PullFailed unless it has the checksum that the hub gives."""
    actual = checksum_of(part, file.checksum.partition(":")[0])
    if actual != file.checksum:
        part.unlink()
        raise PullFailed(
            f"{file.name} arrived damaged and was deleted: the hub says {file.checksum}, the"
            f" download has {actual}"
        )


def _write_config(staging: Path, wanted: PullSource, commit: str, old: Path) -> None:
    """Write the new `config.json`, keeping the keys that its owner added to the `old` one."""
    content = {
        "name": wanted.name,
        "family": wanted.family,
        "description": wanted.description,
        "template": wanted.template,
        "source": f"{wanted.repo}@{commit}",
    }
    known = {key: value for key, value in content.items() if value is not None}
    aside = staging / f".{CONFIG}"
    aside.write_text(json.dumps(_owned(old) | known, indent=2, ensure_ascii=False) + "\n", "utf-8")
    aside.rename(staging / CONFIG)


def _owned(path: Path) -> dict[str, object]:
    """The content of a `config.json`; empty when it is missing or unusable."""
    try:
        read_config(path)
        content: dict[str, object] = json.loads(path.read_bytes())
    except (OSError, InvalidModel):
        return {}
    return content


def _put_in_place(staging: Path, target: Path) -> None:
    """Move the finished model to its place, and delete the old one without following links."""
    old = None
    if target.exists() or target.is_symlink():
        old = staging.parent / f".old-{uuid.uuid4().hex}"
        target.rename(old)
    staging.rename(target)
    if old is not None:
        old.unlink() if old.is_symlink() else shutil.rmtree(old)
