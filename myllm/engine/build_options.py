"""The options of a build, its cmake flags, and the key of its result in the cache."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from myllm.engine.hardware import cpu_features, nvidia_driver_is_there
from myllm.engine.source import Source
from myllm.engine.toolchain import Toolchain, find_nvcc, nvidia_gpus

TARGETS = (
    "llama-server",
    "llama-quantize",
    "llama-fit-params",
)
_TUNING = Path(__file__).with_name("tuning.cmake")
_AMX = "amx"
_WITHOUT_AMX = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
_FROM_ENVIRONMENT = ("CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "CUDAFLAGS", "CUDAARCHS")


Instructions = Literal["all", "without AMX", "common"]
"""`common` is llama.cpp's own choice for a build for other machines: AVX2 on x86."""


@dataclass(frozen=True)
class BuildOptions:
    """`portable`: an engine for any CPU of this architecture. `cuda_archs`: such as "86;90".

    `instructions`: all that this CPU has, or fewer if the engine does not work with all of them.
    """

    backend: Literal["auto", "cpu", "cuda"] = "auto"
    jobs: int | None = None
    portable: bool = False
    cuda_archs: str | None = None
    instructions: Instructions = "all"


def with_fewer_instructions(options: BuildOptions) -> BuildOptions | None:
    """What to compile after the engine of `options` failed on this CPU; None: nothing is left."""
    if options.portable or options.instructions == "common":
        return None
    has_amx = any(feature.startswith(_AMX) for feature in cpu_features())
    fewer: Instructions = "without AMX" if options.instructions == "all" and has_amx else "common"
    return replace(options, instructions=fewer)


def needed_features(options: BuildOptions) -> list[str]:
    """The instruction sets that an engine of `options` may use, as the kernel names them."""
    if options.portable or options.instructions == "common":
        return []
    features = sorted(cpu_features())
    if options.instructions == "without AMX":
        features = [feature for feature in features if not feature.startswith(_AMX)]
    return features


_ALWAYS: Final = {
    "CMAKE_BUILD_TYPE": "Release",
    "CMAKE_PROJECT_INCLUDE": str(_TUNING),
    "BUILD_SHARED_LIBS": "OFF",
    "GGML_NATIVE": "ON",
    "GGML_CCACHE": "OFF",
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_ALL_WARNINGS": "OFF",
    "GGML_ALL_WARNINGS": "OFF",
}


def wants_cuda(options: BuildOptions) -> bool:
    """Whether to compile for CUDA; `auto` does if both its compiler and a GPU are present."""
    if options.backend == "auto":
        return find_nvcc() is not None and bool(nvidia_gpus())
    return options.backend == "cuda"


def cmake_flags(source: Source, tools: Toolchain, options: BuildOptions) -> list[str]:
    """All -D flags. The build downloads nothing and ignores optional libraries on this machine."""
    flags = {
        **_ALWAYS,
        "CMAKE_C_COMPILER": str(tools.cc),
        "CMAKE_CXX_COMPILER": str(tools.cxx),
        "CMAKE_MAKE_PROGRAM": str(tools.ninja),
    }
    if source.pin is not None:
        flags["LLAMA_BUILD_NUMBER"] = str(source.pin.build)
        flags["LLAMA_BUILD_COMMIT"] = source.commit
        flags["MYLLM_UNITY"] = "ON"
    if options.instructions == "without AMX":
        for language in ("C", "CXX"):
            given = os.environ.get(f"{language}FLAGS", "")
            flags[f"CMAKE_{language}_FLAGS"] = f"{given} {_WITHOUT_AMX}".strip()
    if options.instructions == "common":
        flags["GGML_NATIVE"] = "OFF"
    if options.portable:
        flags |= {
            "GGML_NATIVE": "OFF",
            "GGML_BACKEND_DL": "ON",
            "GGML_CPU_ALL_VARIANTS": "ON",
            "BUILD_SHARED_LIBS": "ON",
            # Programs find the libraries next to them, even after the folder is moved.
            "CMAKE_INSTALL_RPATH": "$ORIGIN",
            "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
        }
    if tools.nvcc is not None:
        flags |= {
            "GGML_CUDA": "ON",
            "GGML_CUDA_NCCL": "OFF",
            "CMAKE_CUDA_COMPILER": str(tools.nvcc),
        }
        flags |= {"CMAKE_CUDA_HOST_COMPILER": str(tools.cxx)}
        archs = options.cuda_archs or _native_archs(options)
        if archs:
            flags["CMAKE_CUDA_ARCHITECTURES"] = archs
    return [f"-D{name}={value}" for name, value in flags.items()]


def _native_archs(options: BuildOptions) -> str | None:
    # Without a GPU, and for other machines, llama.cpp's own list of architectures applies.
    return "native" if nvidia_driver_is_there() and not options.portable else None


def build_key(source: Source, flags: list[str], tools: Toolchain, portable: bool) -> str:
    """A key made of everything that can change the result of the build.

    It contains the content of the tuning file, not its path, which depends on the installation.
    """
    facts = [source.id, tools.identity, _TUNING.read_text()]
    facts += sorted(flag for flag in flags if str(_TUNING) not in flag)
    facts += [f"{name}={os.environ[name]}" for name in _FROM_ENVIRONMENT if os.environ.get(name)]
    if not portable:
        facts += sorted(cpu_features())
    digest = hashlib.sha256("\0".join(facts).encode()).hexdigest()[:12]
    kind = "cuda" if tools.nvcc is not None else "cpu"
    return f"{kind}-portable-{digest}" if portable else f"{kind}-{digest}"
