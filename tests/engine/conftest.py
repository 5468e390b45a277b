"""Settings whose cache, source and pin are the test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from myllm.engine import pinned_source
from myllm.settings import Settings
from tests.engine.llama import write_tree

MakeSettings = Callable[..., Settings]


@pytest.fixture
def make_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeSettings:
    """Settings below `tmp_path` that ignore the environment and the llama-server on PATH."""
    for name in ("MYLLM_LLAMA_SERVER", "MYLLM_LLAMA_SOURCE", "CC", "CXX"):
        monkeypatch.delenv(name, raising=False)

    def make(**given: object) -> Settings:
        chosen = {"cache_dir": tmp_path / "cache", "models_dir": tmp_path / "models", **given}
        return Settings(_env_file=None, **chosen)  # type: ignore[arg-type,call-arg]

    return make


@pytest.fixture
def tiny(make_settings: MakeSettings, tmp_path: Path) -> Settings:
    """Settings that name a tiny llama.cpp checkout."""
    return make_settings(llama_source=write_tree(tmp_path / "tree"))


@pytest.fixture
def tiny_pin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Pin the package tiny-llama with a given checksum, in a vendor folder of the test's own."""

    def write(sha256: str) -> Path:
        vendor = tmp_path / "vendor"
        vendor.mkdir(exist_ok=True)
        (vendor / "pin.toml").write_text(
            f'[upstream]\ncommit = "abcdef123"\nbuild = 11400\n[source]\npackage = "tiny-llama"\n'
            f'version = "1.0"\nsha256 = "{sha256}"\nfolder = "vendor/llama"\n'
        )
        monkeypatch.setattr(pinned_source, "VENDOR_DIR", vendor)
        return vendor

    return write


@pytest.fixture
def path_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Make PATH a single folder with links to the programs named; returns the folder."""

    def build(*programs: str) -> Path:
        import shutil

        folder = tmp_path / "path"
        folder.mkdir()
        for program in programs:
            found = shutil.which(program)
            assert found is not None, program
            (folder / program).symlink_to(found)
        monkeypatch.setenv("PATH", str(folder))
        return folder

    return build
