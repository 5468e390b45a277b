"""A llama.cpp of tiny programs, which cmake and ninja compile in a second."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

from myllm.engine.build_options import TARGETS
from myllm.engine.engine import Engine

VERSION_LINE = "version: 0.5.0-dev (build {build}, commit abcdef123)"

_CMAKE = """cmake_minimum_required(VERSION 3.14)
project(llama C CXX)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
message(STATUS "llama.cpp version: 0.5.0-dev")
message(STATUS "Including CPU backend")
"""

_MAIN = """#include <cstdio>
#include <cstring>
int main(int argc, char ** argv) {
    if (argc > 1 && !strcmp(argv[1], "--version")) {
        fprintf(stderr, "version: 0.5.0-dev (build 12000, commit abcdef123)\\n");
    } else if (argc > 1 && !strcmp(argv[1], "--list-devices")) {
        printf("Available devices:\\n  (none)\\n");
    }
    return 0;
}
"""


def write_tree(folder: Path, files: dict[str, str] | None = None) -> Path:
    """A source tree in `folder`; `files` replaces or adds some of its files."""
    folder.mkdir(parents=True, exist_ok=True)
    targets = "".join(f"add_executable({target} {target}.cpp)\n" for target in TARGETS)
    content = {"CMakeLists.txt": _CMAKE + targets}
    content |= {f"{target}.cpp": _MAIN for target in TARGETS}
    for name, text in (content | (files or {})).items():
        (folder / name).write_text(text)
    return folder


def write_working_tree(folder: Path, engine: Engine, works_if: str = "true") -> Path:
    """A tree whose programs run those of `engine`; its server dies of SIGILL with a model unless
    cmake's condition `works_if` holds."""
    main = (
        "#include <csignal>\n#include <cstring>\n#include <unistd.h>\n"
        "int main(int, char ** argv) {{\n"
        '    if (!WORKS && argv[1] && !strcmp(argv[1], "--model")) raise(SIGILL);\n'
        '    return execv("{program}", argv);\n}}\n'
    )
    programs = {target: engine.tool(target) for target in TARGETS}
    tree = write_tree(
        folder, {f"{name}.cpp": main.format(program=place) for name, place in programs.items()}
    )
    with (tree / "CMakeLists.txt").open("a") as file:
        file.write(f"set(WORKS 0)\nif({works_if})\n    set(WORKS 1)\nendif()\n")
        for name in TARGETS:
            file.write(f"target_compile_definitions({name} PRIVATE WORKS=${{WORKS}})\n")
    return tree


_BACKEND = """
import io, tarfile
def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    import os
    name = "tiny_llama-1.0.dist-info"
    os.mkdir(os.path.join(metadata_directory, name))
    with open(os.path.join(metadata_directory, name, "METADATA"), "w") as file:
        file.write("Metadata-Version: 2.1\\nName: tiny-llama\\nVersion: 1.0\\n")
    return name
def get_requires_for_build_wheel(config_settings=None):
    return []
def build_wheel(*arguments):
    raise SystemExit("no wheel is wanted")
"""


def write_sdist(folder: Path, extra: dict[str, str] | None = None) -> tuple[Path, str]:
    """The sdist of package tiny-llama 1.0 and its sha256; it carries a tree in `vendor/llama`.

    Its build backend lies in the sdist, so pip needs no network to read its metadata.
    """
    tree = write_tree(folder / "tree")
    names = {f"vendor/llama/{path.name}": path.read_text() for path in tree.iterdir()}
    # The pinned tree is pruned to known folders, so the programs are put into one of them.
    names = {
        name.replace("vendor/llama/", "vendor/llama/src/") if name.endswith(".cpp") else name: text
        for name, text in names.items()
    }
    cmake = names["vendor/llama/CMakeLists.txt"]
    for target in TARGETS:
        cmake = cmake.replace(f" {target}.cpp", f" src/{target}.cpp")
    names["vendor/llama/CMakeLists.txt"] = cmake
    names["pyproject.toml"] = (
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    names["backend.py"] = _BACKEND
    names["PKG-INFO"] = "Metadata-Version: 2.1\nName: tiny-llama\nVersion: 1.0\n"
    sdist = folder / "tiny_llama-1.0.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        for name, text in (names | (extra or {})).items():
            data = text.encode()
            member = tarfile.TarInfo(f"tiny_llama-1.0/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return sdist, hashlib.sha256(sdist.read_bytes()).hexdigest()


def write_server(path: Path, build: int = 12000, script: str = "") -> Path:
    """A program that answers `--version` and `--list-devices` as a llama-server does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    version = VERSION_LINE.format(build=build)
    path.write_text(
        "#!/bin/sh\n"
        f"{script}\n"
        f'[ "$1" = --version ] && echo "{version}" >&2\n'
        '[ "$1" = --list-devices ] && echo "Available devices:" && '
        'echo "  CUDA0: A card (with brackets) (24268 MiB, 23901 MiB free)"\n'
        "exit 0\n"
    )
    path.chmod(0o755)
    return path
