"""Unpack only what the build and the tests need from the sdist.

A marker file names the sdist, and the rules by which its files were chosen.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from myllm.engine.pinned_source import Pin
from myllm.engine.progress import Progress, ProgressListener
from myllm.errors import BuildFailed

MARKER = ".myllm-pin"

_FILES = {
    "CMakeLists.txt",
    "LICENSE",
    "AUTHORS",
    "scripts/ui-assets.cmake",
    "tools/ui/CMakeLists.txt",
    "tools/ui/sources.cmake",
    "tools/ui/ui.cpp.in",
    "tools/ui/ui.h.in",
    "models/ggml-vocab-llama-spm.gguf",
    "models/ggml-vocab-bert-bge.gguf",
    "models/ggml-vocab-qwen2.gguf",
}
_FOLDERS = ("cmake", "common", "ggml", "include", "licenses", "src", "tools", "vendor")
_NOT_NEEDED = ("tools/ui", "tools/server/tests", "tools/server/bench", "tools/mtmd/tests")
# Chat templates of many model families, for the tests.
_TEMPLATES = "models/templates"
# Half of ggml is backends that MyLLM never enables.
_BACKENDS = {"ggml-cpu", "ggml-cuda", "ggml-metal", "ggml-blas"}
_NOT_SOURCE = {".md", ".py", ".sh", ".jpeg", ".mp3", ".mp4", ".png", ".ipynb"}


def is_needed(name: str) -> bool:
    """Whether the build or the tests need the file `name`, relative to llama.cpp's root."""
    path = PurePosixPath(name)
    if name in _FILES:
        return True
    if path.is_relative_to(_TEMPLATES):
        return path.suffix == ".jinja"
    if path.parts[0] not in _FOLDERS or path.suffix in _NOT_SOURCE:
        return False
    if any(path.is_relative_to(folder) for folder in _NOT_NEEDED):
        return False
    if path.parts[:2] == ("ggml", "src") and len(path.parts) > 3:
        return path.parts[2] in _BACKENDS
    return True


def is_unpacked(pin: Pin, tree: Path) -> bool:
    """Whether `tree` has all that is needed of the pinned sdist."""
    try:
        return (tree / MARKER).read_text() == _mark(pin)
    except OSError:
        return False


def _mark(pin: Pin) -> str:
    """The content of the marker; it changes with the pin, and with what is needed of it."""
    sets = [sorted(each) for each in (_FILES, _BACKENDS, _NOT_SOURCE)]
    rules = repr((sets, _FOLDERS, _NOT_NEEDED, _TEMPLATES))
    return f"{pin.sha256} {hashlib.sha256(rules.encode()).hexdigest()[:16]}\n"


def unpack(sdist: Path, pin: Pin, tree: Path, progress: ProgressListener) -> None:
    """Unpack `sdist` to `tree`, replacing what was unpacked there before.

    When this returns the tree is complete; until then `tree` is unchanged. Raises BuildFailed for
    a damaged archive or a full disk.
    """
    tree.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{tree.name}.", dir=tree.parent))
    try:
        new, old = aside / "new", aside / "old"
        if _extract(sdist, pin.folder, new, progress) == 0:
            raise BuildFailed(f"{sdist} has no {pin.folder}/CMakeLists.txt")
        (new / MARKER).write_text(_mark(pin))
        if tree.exists():
            tree.rename(old)
        new.rename(tree)
    except (tarfile.TarError, EOFError) as damage:
        raise BuildFailed(f"{sdist} is damaged ({damage}); delete it and try again") from damage
    except OSError as failure:
        raise BuildFailed(
            f"Unpacking {sdist.name} to {tree} failed: {failure.strerror or failure}"
        ) from failure
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _extract(sdist: Path, folder: str, target: Path, progress: ProgressListener) -> int:
    """Write the needed files below `target`; return how many.

    Only plain files are written, each at a path that `is_needed` allows, so a link or a path with
    `..` in the archive has no effect. Times of change are kept, so an interrupted build resumes
    even if the tree was unpacked again.
    """
    count, size, last = 0, sdist.stat().st_size, -1
    with sdist.open("rb") as compressed, tarfile.open(fileobj=compressed, mode="r|gz") as archive:
        for member in archive:
            percent = compressed.tell() * 100 // size
            if percent != last:
                last = percent
                progress(Progress("unpack", compressed.tell(), size))
            name = member.name.partition("/")[2].removeprefix(f"{folder}/")
            inside = member.name.partition("/")[2].startswith(f"{folder}/")
            if not (inside and member.isfile() and ".." not in name.split("/") and is_needed(name)):
                continue
            content = archive.extractfile(member)
            assert content is not None
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                shutil.copyfileobj(content, file)
            os.utime(path, (member.mtime, member.mtime))
            count += 1
    return count if (target / "CMakeLists.txt").is_file() else 0
