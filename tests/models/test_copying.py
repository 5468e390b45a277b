"""Copying a model: what both share, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from myllm.errors import Conflict, InvalidModel, InvalidRequest, ModelNotFound
from myllm.models.copying import copy_model
from myllm.models.registry import Registry
from tests.ggufs import write_header, write_split

CONFIG = {"aliases": ["gpt-4o"], "template": "own.jinja", "parameters": {"seed": 7}, "note": "ö"}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """A registry with one model, `tiny`."""
    folder = tmp_path / "models" / "tiny"
    write_header(folder / "tiny.gguf")
    (folder / "own.jinja").write_text("{{ messages }}")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return Registry(tmp_path / "models", tmp_path / "builtin")


def folders(registry: Registry) -> set[str]:
    return {path.name for path in registry.models_dir.iterdir() if path.name != ".staging"}


def test_the_gguf_is_shared_and_everything_else_is_not(registry: Registry) -> None:
    copied = copy_model(registry, "gpt-4o:latest", "copy:latest")
    first, second = registry.get("tiny"), registry.get("copy")
    assert (copied.model, copied.copied_bytes) == (second, 0)
    assert os.path.samefile(first.gguf, second.gguf)
    assert second.digest == first.digest
    assert not os.path.samefile(first.path / "own.jinja", second.path / "own.jinja")
    own = json.loads((second.path / "config.json").read_text())
    assert own == {key: value for key, value in CONFIG.items() if key != "aliases"}
    assert registry.get("gpt-4o").name == "tiny"
    registry.remove("tiny")
    assert registry.get("copy").header.vocabulary_size == 300


def test_all_parts_of_a_split_model_are_copied(registry: Registry) -> None:
    write_split(registry.models_dir / "big")
    copied = copy_model(registry, "big", "copy")
    assert len(copied.model.files) == 3
    assert copied.model.digest == registry.get("big").digest


def test_copies_of_links_lead_to_the_same_file(registry: Registry, tmp_path: Path) -> None:
    weights = write_header(tmp_path / "elsewhere" / "x.gguf")
    (registry.models_dir / "linked").symlink_to(weights.parent)
    copy_model(registry, "linked", "copy")
    assert os.path.samefile(registry.get("copy").gguf, weights)
    assert not registry.get("copy").gguf.is_symlink(), "so that it outlives the first name"


def without_links(*_: Any, **__: Any) -> None:
    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


def test_without_hard_links_the_gguf_is_copied(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", without_links)
    copied = copy_model(registry, "tiny", "copy")
    assert copied.copied_bytes == copied.model.size_bytes > 0
    assert copied.model.gguf.read_bytes() == registry.get("tiny").gguf.read_bytes()


def test_nothing_is_copied_to_a_full_disk(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", without_links)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(InvalidRequest, match=r"not enough disk space .* a copy of 'tiny' takes"):
        copy_model(registry, "tiny", "copy")
    assert folders(registry) == {"tiny"}
    assert not list((registry.models_dir / ".staging").glob(".copy-*"))


@pytest.mark.parametrize("name", ["", "../x", "with space", "a:7b", ".hidden", "org/x"])
def test_an_invalid_name_is_refused(registry: Registry, name: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be a model's name"):
        copy_model(registry, "tiny", name)
    assert folders(registry) == {"tiny"}


def test_a_copy_overwrites_nothing(registry: Registry, tmp_path: Path) -> None:
    write_header(tmp_path / "builtin" / "demo" / "demo.gguf")
    (registry.models_dir / "broken").mkdir()
    (registry.models_dir / "file").write_text("")
    (registry.models_dir / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("tiny", "demo", "broken"):
        with pytest.raises(Conflict, match=f"There is a model '{name}' already"):
            copy_model(registry, "tiny", name)
    for name in ("file", "dangling"):
        with pytest.raises(Conflict, match="exists already"):
            copy_model(registry, "tiny", name)
    with pytest.raises(Conflict, match="'tiny' has the alias 'gpt-4o' already"):
        copy_model(registry, "tiny", "gpt-4o")


def test_unknown_and_broken_models_cannot_be_copied(registry: Registry) -> None:
    (registry.models_dir / "broken").mkdir()
    with pytest.raises(ModelNotFound):
        copy_model(registry, "nope", "copy")
    with pytest.raises(InvalidModel, match="holds no GGUF file"):
        copy_model(registry, "broken", "copy")


def test_a_copy_and_a_pull_of_one_name_exclude_each_other(registry: Registry) -> None:
    staging = registry.models_dir / ".staging"
    staging.mkdir()
    with (
        FileLock(staging / "copy.lock"),
        pytest.raises(Conflict, match="'copy' is being pulled or copied just now"),
    ):
        copy_model(registry, "tiny", "copy")
    assert copy_model(registry, "tiny", "copy").model.name == "copy"


def test_remains_of_a_killed_copy_do_no_harm(registry: Registry) -> None:
    left = registry.models_dir / ".staging" / ".copy-copy"
    left.mkdir(parents=True)
    (left / "half.gguf").write_bytes(b"GGUF")
    assert len(copy_model(registry, "tiny", "copy").model.files) == 1
    assert not left.exists()
