"""Warnings about a folder that has changed since its model was loaded."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from myllm.models.folder_changes import warnings_on
from myllm.models.registry import Registry
from tests.ggufs import write_header
from tests.projectors import write_projector

CONFIG = {"template": "chat.jinja", "aliases": ["other"], "parameters": {"top_k": 1}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "tiny"
    write_header(folder / "tiny.gguf")
    (folder / "chat.jinja").write_text("{{ messages }}")
    configure(folder, CONFIG)
    return folder


def configure(folder: Path, config: dict[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(config))


def touch(file: Path) -> None:
    os.utime(file, ns=(1, 1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: configure(f, CONFIG | {"context_size": 9}), "config.json has changed since"),
        (lambda f: configure(f, CONFIG | {"family": "mine"}), "config.json has changed since"),
        (lambda f: configure(f, CONFIG | {"aliases": []}), "config.json has changed since"),
        (lambda f: configure(f, CONFIG | {"template": "chatml"}), "config.json has changed since"),
        (lambda f: (f / "config.json").unlink(), "config.json has changed since"),
        (lambda f: (f / "config.json").write_text("{"), "is not valid JSON"),
        (lambda f: (f / "chat.jinja").write_text("x"), "the template chat.jinja has changed"),
        (lambda f: (f / "chat.jinja").write_bytes(b"\xff"), "is not a text in UTF-8"),
        (lambda f: (f / "chat.jinja").unlink(), "does not exist"),
        (lambda f: write_header(f / "tiny.gguf", context_length=9), "tiny.gguf has been replaced"),
        (lambda f: (f / "tiny.gguf").rename(f / "new.gguf"), "new.gguf has been replaced"),
        (lambda f: write_header(f / "b.gguf"), "more than one model"),
        (lambda f: (f / "tiny.gguf").unlink(), "holds no GGUF file"),
        (lambda f: write_projector(f / "mmproj.gguf"), "mmproj.gguf has been added"),
        (shutil.rmtree, "tiny is gone; the running engine goes on"),
    ],
)
def test_each_change_gives_a_warning(
    folder: Path, change: Callable[[Path], object], words: str
) -> None:
    registry = Registry(folder.parent)
    loaded = registry.get("tiny")
    assert warnings_on(registry, loaded) == ()
    change(folder)
    [warning] = warnings_on(registry, loaded)
    assert words in warning


def test_irrelevant_changes_give_no_warning(folder: Path) -> None:
    registry = Registry(folder.parent)
    loaded = registry.get("tiny")
    for file in folder.iterdir():
        touch(file)
    (folder / "README.md").write_text("words")
    configure(folder, CONFIG | {"name": "else", "unknown": 1})
    assert warnings_on(registry, loaded) == ()


def test_another_file_of_the_same_size_and_time_gives_a_warning(folder: Path) -> None:
    registry = Registry(folder.parent)
    touch(folder / "tiny.gguf")
    loaded = registry.get("tiny")
    other = write_header(folder.parent / "aside" / "x.gguf", context_length=1024)
    assert other.stat().st_size == (folder / "tiny.gguf").stat().st_size
    touch(other)
    other.replace(folder / "tiny.gguf")
    assert "tiny.gguf has been replaced" in warnings_on(registry, loaded)[0]


def test_a_model_that_shadows_the_built_in_one_gives_a_warning(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    loaded = registry.get("demo")
    write_header(tmp_path / "demo" / "demo.gguf")
    [warning] = warnings_on(registry, loaded)
    assert f"another one, in {tmp_path / 'demo'}" in warning
