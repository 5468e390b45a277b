"""Entries of the model folder that are not models."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from myllm.models.registry import Registry
from myllm.models.unused_entries import unused_entries
from tests.ggufs import write_header, write_split


def problems(models_dir: Path) -> dict[str, str]:
    return {Path(each.path).name: each.problem for each in unused_entries(models_dir)}


def do_as_told(models_dir: Path) -> list[str]:
    """Follow all advice and return the names of the models that result."""
    for each in unused_entries(models_dir):
        subprocess.run(each.problem.partition("try: ")[2], shell=True, check=True)
    assert unused_entries(models_dir) == []
    return [model.name for model in Registry(models_dir, models_dir / "none").list()]


@pytest.mark.parametrize(
    ("name", "becomes"),
    [
        ("tiny.gguf", "tiny"),
        ("Tiny.Q4_K_M.GGUF", "Tiny.Q4_K_M"),
        ("it's my model.gguf", "it-s-my-model"),
        ("--.gguf", "model"),
        ("ö.gguf", "model"),
        ("x" * 140 + ".gguf", "x" * 128),
    ],
)
def test_a_loose_gguf_gets_a_folder(tmp_path: Path, name: str, becomes: str) -> None:
    write_header(tmp_path / name)
    assert "a model needs a folder of its own; try: mkdir" in problems(tmp_path)[name]
    assert do_as_told(tmp_path) == [becomes]


def test_the_parts_of_one_model_stay_together(tmp_path: Path) -> None:
    parts = write_split(tmp_path / "with space")
    for part in parts:
        part.rename(tmp_path / part.name)
    (tmp_path / "with space").rmdir()
    assert len(unused_entries(tmp_path)) == 1
    [name] = do_as_told(tmp_path)
    assert len(Registry(tmp_path, tmp_path / "none").get(name).files) == len(parts)


def test_a_name_that_is_taken_is_not_suggested(tmp_path: Path) -> None:
    write_header(tmp_path / "tiny.gguf")
    write_header(tmp_path / "tiny" / "other.gguf")
    assert do_as_told(tmp_path) == ["tiny", "tiny-2"]


@pytest.mark.parametrize(
    ("name", "becomes"),
    [("my model", "my-model"), ("-x", "x"), ("[a]", "a"), ("y" * 129, "y" * 128)],
)
def test_a_folder_under_a_wrong_name_is_renamed(tmp_path: Path, name: str, becomes: str) -> None:
    write_header(tmp_path / name / "tiny.gguf")
    assert "no model can have this name" in problems(tmp_path)[name]
    assert do_as_told(tmp_path) == [becomes]


def test_a_projector_and_a_link_to_nothing(tmp_path: Path) -> None:
    write_header(tmp_path / "mmproj-tiny.gguf")
    (tmp_path / "gone").symlink_to(tmp_path / "away" / "gone")
    told = problems(tmp_path)
    assert "belongs next to its model's GGUF" in told["mmproj-tiny.gguf"]
    assert told["gone"].startswith(f"a link to {tmp_path}/away/gone, which is not there")


def test_a_name_that_is_not_unicode_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.gguf")).write_bytes(b"")
    (tmp_path / os.fsdecode(b"\xfe")).mkdir()
    write_header(tmp_path / "two" / os.fsdecode(b"\xff.gguf"))
    write_header(tmp_path / "two" / "tiny.gguf")
    assert len(unused_entries(tmp_path)) == 2
    [model] = Registry(tmp_path, tmp_path / "none").list()
    for text in (
        model.problem or "",
        *(each.path + each.problem for each in unused_entries(tmp_path)),
    ):
        assert text.encode()


def test_hidden_and_other_files_are_ignored(tmp_path: Path) -> None:
    write_header(tmp_path / "tiny" / "tiny.gguf")
    for name in (".staging", "lost+found", ".hidden model"):
        (tmp_path / name).mkdir()
    for name in (".x.gguf", "README.md", "with space.txt"):
        (tmp_path / name).write_text("")
    assert unused_entries(tmp_path) == []
    assert unused_entries(tmp_path / "none") == []
    assert unused_entries(tmp_path / "README.md") == []
