"""Parses what a pull asks for and chooses the repository's files; does not use the network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from myllm.errors import PullFailed
from myllm.models.catalog import catalog
from myllm.models.model import PART, part_names
from myllm.models.registry import is_model_name, untagged

PREFERRED: Final = "Q4_K_M"
_GGUF: Final = ".gguf"
_HUB: Final = re.compile(r"(https?://)?(www\.)?(hf\.co|huggingface\.co)/", re.IGNORECASE)
_REPO: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


@dataclass(frozen=True)
class PullSource:
    """The source of a model to pull. `file` is a GGUF file of the repository, or a quantization
    such as `Q8_0` in its name; None: the file that fits best."""

    name: str
    repo: str
    file: str | None = None
    family: str | None = None
    description: str | None = None
    template: str | None = None


def parse_reference(reference: str, name: str | None = None) -> PullSource:
    """Parse a `NAME` of the catalog or `org/repo[:file.gguf|:QUANTIZATION]`, which may begin
    with `hf.co/` or `huggingface.co/`.

    A repository's model is named after it, in lower case and without `-GGUF`, and after the
    quantization if the reference has one, unless `name` is given. A trailing `:latest` is ignored,
    because Ollama's clients append it. Raises PullFailed for anything else, and for a name that is
    not allowed.
    """
    reference = untagged(reference)
    name = untagged(name) if name else None
    entry = catalog().get(reference)
    if entry is not None:
        wanted = PullSource(
            name or entry.name,
            entry.repo,
            entry.file,
            entry.family,
            entry.description,
            entry.template,
        )
    else:
        repo, colon, file = _HUB.sub("", reference, count=1).rstrip("/").partition(":")
        if not _REPO.fullmatch(repo) or ".." in repo or (colon and not file):
            raise PullFailed(
                f"'{reference}' is neither in the catalog ({', '.join(catalog())}) nor of the form"
                " org/repo, org/repo:file.gguf or org/repo:QUANTIZATION"
            )
        default = re.sub(r"[-_.]gguf$", "", repo.split("/")[1], flags=re.IGNORECASE).lower()
        if file and not file.lower().endswith(_GGUF):
            default = f"{default}-{file.lower()}"
        wanted = PullSource(name or default, repo, file or None)
    if not is_model_name(wanted.name):
        raise PullFailed(
            f"'{wanted.name}' cannot be a model's name; it takes 1 to 128 letters, digits, '.',"
            " '_' and '-', the first a letter or digit"
        )
    return wanted


def is_hub_address(reference: str) -> bool:
    """Whether a reference names the hub, so it cannot be the name of a local model."""
    return _HUB.match(reference) is not None


def choose_files(wanted: PullSource, names: Sequence[str]) -> list[str]:
    """The files to download: one GGUF, or all parts of a split one.

    If `wanted` names no file, it is the only Q4_K_M, else the only model. Raises PullFailed with
    the choices when no file fits or more than one does.
    """
    models = [name for name in names if _is_model(name)]
    if not models:
        raise PullFailed(f"{wanted.repo} holds no GGUF model")
    choices = [name for name in models if _is_first(name)]
    if wanted.file is not None:
        fitting = [name for name in models if wanted.file in (name, PurePosixPath(name).name)]
        fitting = fitting or [name for name in choices if _has_quantization(name, wanted.file)]
        problem = f"has {'more than one' if fitting else 'no'} file {wanted.file}"
    else:
        preferred = [name for name in choices if PREFERRED.lower() in name.lower()]
        fitting = preferred or choices
        problem = f"holds {len(fitting)} models that would do"
    if len(fitting) != 1:
        raise PullFailed(
            f"{wanted.repo} {problem}; choose one with '{wanted.repo}:FILE', where FILE is one of"
            f" {', '.join(choices)}"
        )
    return _all_parts(wanted.repo, fitting[0], names)


def _has_quantization(name: str, quantization: str) -> bool:
    """Whether a file's name contains it as a separate word: Q4_K does not match Q4_K_M."""
    word = rf"(?<![A-Za-z0-9]){re.escape(quantization)}(?!_?[A-Za-z0-9])"
    return re.search(word, PurePosixPath(name).name, re.IGNORECASE) is not None


def _is_model(name: str) -> bool:
    file = PurePosixPath(name).name.lower()
    return file.endswith(_GGUF) and not file.startswith(("mmproj", "."))


def _is_first(name: str) -> bool:
    match = PART.fullmatch(PurePosixPath(name).name)
    return match is None or int(match["number"]) == 1


def _all_parts(repo: str, name: str, names: Sequence[str]) -> list[str]:
    path = PurePosixPath(name)
    parts = [str(path.with_name(part)) for part in part_names(path.name)]
    if missing := [part for part in parts if part not in names]:
        raise PullFailed(f"{repo} lacks {missing[0]}, a part of {path.name}")
    return parts
