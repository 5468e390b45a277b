"""Copying a model under another name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from myllm.errors import Conflict, InvalidModel, InvalidRequest, ModelNotFound
from myllm.models.model import CONFIG, Model
from myllm.models.pull import STAGING
from myllm.models.registry import Registry, is_model_name, untagged


@dataclass(frozen=True)
class CopyResult:
    """The new model, and how many bytes of GGUF files had to be copied; hard links take none."""

    model: Model
    copied_bytes: int


def copy_model(registry: Registry, source: str, name: str) -> CopyResult:
    """Give the model `source` a second folder, `name`, with a configuration of its own.

    GGUF files become hard links, which is safe because MyLLM never changes them in place: a pull
    replaces them, and a removal deletes one of two names. A file system without hard links gets
    copies. The copy has no aliases, which belong to one model. It appears whole or not at all.

    Raises ModelNotFound and InvalidModel for `source`, InvalidRequest for an invalid name and for
    a disk that is too full, and Conflict for a name that is taken.
    """
    from filelock import FileLock, Timeout

    model, name = registry.get(source), untagged(name)
    staging = registry.models_dir / STAGING / f".copy-{name}"
    _check_name(registry, name)
    try:
        staging.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(staging.with_name(f"{name}.lock"), timeout=0):  # the lock of a pull of `name`
            _check_name(registry, name)
            try:
                copied_bytes = _fill(staging, model.path)
                staging.rename(registry.models_dir / name)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except Timeout:
        raise Conflict(f"'{name}' is being pulled or copied just now; try again later") from None
    except OSError as failure:
        raise InvalidModel(f"'{model.name}' cannot be copied: {failure}") from failure
    return CopyResult(registry.get(name), copied_bytes)


def _check_name(registry: Registry, name: str) -> None:
    """Raise unless a new model can be called `name`; an alias would change what it means."""
    if not is_model_name(name):
        raise InvalidRequest(
            f"'{name}' cannot be a model's name; it takes 1 to 128 letters, digits, '.', '_' and"
            " '-', the first a letter or digit"
        )
    try:
        taken = registry.find(name).name
    except ModelNotFound:
        if os.path.lexists(registry.models_dir / name):
            raise Conflict(f"{registry.models_dir / name} exists already") from None
        return
    what = "There is a model" if taken == name else f"The model '{taken}' has the alias"
    raise Conflict(f"{what} '{name}' already; choose another name, or remove that first")


def _fill(staging: Path, folder: Path) -> int:
    """Put the files of `folder` into a new folder `staging`; return the bytes of GGUF copied."""
    shutil.rmtree(staging, ignore_errors=True)  # remains of a copy that was killed
    staging.mkdir()
    files = [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]
    copied = [path for path in files if not _linked(path, staging / path.name)]
    weights = sum(path.stat().st_size for path in copied if _is_weights(path))
    _check_space(staging, folder.name, copied)
    for path in copied:
        if path.name == CONFIG:
            _write_config(path, staging / CONFIG)
        else:
            shutil.copyfile(path, staging / path.name)
    return weights


def _is_weights(path: Path) -> bool:
    return path.suffix.lower() == ".gguf"


def _linked(path: Path, copy: Path) -> bool:
    """Make `copy` a hard link if `path` is a GGUF and the file system allows it; return whether."""
    if not _is_weights(path):
        return False
    try:
        os.link(path.resolve(), copy)
    except OSError:  # another file system, or one without hard links
        return False
    return True


def _check_space(staging: Path, name: str, files: Sequence[Path]) -> None:
    needs = sum(path.stat().st_size for path in files)
    has = shutil.disk_usage(staging).free
    if needs > has:
        raise InvalidRequest(
            f"not enough disk space in {staging.parent.parent}: a copy of '{name}' takes"
            f" {needs / 1e6:,.0f} MB, {has / 1e6:,.0f} MB are free"
        )


def _write_config(path: Path, copy: Path) -> None:
    """Write all keys but the aliases and the name; `path` is valid, the model was read with it."""
    content = json.loads(path.read_bytes())
    content.pop("aliases", None)
    content.pop("name", None)
    copy.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
