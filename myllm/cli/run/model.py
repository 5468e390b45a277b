"""Which model `myllm run` talks to: an existing one, one to pull first, or a GGUF file."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from myllm.cli.common import EXIT_FAILED, say
from myllm.errors import InvalidModel, ModelNotFound, PullFailed
from myllm.escaping import in_lines

if TYPE_CHECKING:
    import httpx

    from myllm.models.pull_source import PullSource
    from myllm.models.registry import Model, Registry
    from myllm.settings import Settings

_LONGEST_NAME = 128


@contextmanager
def server_with(settings: Settings, reference: str) -> Iterator[tuple[httpx.Client, str]]:
    """A client of a server that has the model, and the model's name there.

    A GGUF file is served by a server of the command's own, through a symbolic link. That server
    saves no KV states, since the model ends with the command.
    """
    from myllm.cli.temporary_server import own_server, server_for_command

    file = _file(reference)
    if file is None:
        name = _pulled(settings, reference)
        with server_for_command(settings) as server:
            yield server, name
        return
    with tempfile.TemporaryDirectory(prefix="myllm-") as folder:
        name = _link(file, Path(folder))
        own = settings.model_copy(update={"models_dir": Path(folder), "kv_cache_mb": 0})
        with own_server(own) as server:
            yield server, name


def _file(reference: str) -> Path | None:
    """The file that `reference` names; None for a model's name, even if a file has that name."""
    from myllm.models.pull_source import is_hub_address

    if is_hub_address(reference):
        return None
    path = Path(os.path.expanduser(reference))
    if reference.startswith(("/", "./", "../", "~")):
        return path
    # Repositories and their files are written org/repo:file.gguf.
    is_spelled_so = "/" in reference and ":" not in reference
    is_gguf = reference.lower().endswith(".gguf")
    return path if is_gguf and (is_spelled_so or path.is_file()) else None


def _link(file: Path, models_dir: Path) -> str:
    """Make a model folder with links to `file`, to its other parts, and to its projector.

    Returns the model's name, which comes from the file's. Raises InvalidModel, naming the file.
    """
    from myllm.models.gguf import read_header
    from myllm.models.model import PART, part_names
    from myllm.models.read_errors import PULL_AGAIN

    if not file.is_file():
        raise InvalidModel(f"{file} is a folder" if file.is_dir() else f"there is no file {file}")
    parts = [file.absolute().with_name(name) for name in part_names(file.name)]
    for part in parts:
        if not part.exists():
            raise InvalidModel(f"{part} is missing, a part of the model {file.name}")
        try:
            read_header(part)
        except InvalidModel as failure:  # its advice to pull again does not apply here
            raise InvalidModel(failure.detail.removesuffix(f"; {PULL_AGAIN}")) from None
    split = PART.fullmatch(file.name)
    folder = models_dir / _valid_name(split["stem"] if split else file.stem)
    folder.mkdir()
    for path in (*parts, *_projector(parts)):
        # The user named the file, so its suffix need not be exactly ".gguf".
        name = path.name if path.suffix.lower() == ".gguf" else f"{path.name}.gguf"
        (folder / name).symlink_to(path)
    return folder.name


def _projector(parts: list[Path]) -> list[Path]:
    """The projector next to the model, if its folder has no other model."""
    from myllm.models.model import find_files

    try:
        files, projector = find_files(parts[0].parent)
    except InvalidModel:
        return []
    return [projector] if projector is not None and list(files) == parts else []


def _valid_name(stem: str) -> str:
    """The model name that `stem` becomes without disallowed characters."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip("._-")
    return name[:_LONGEST_NAME] or "model"


def _pulled(settings: Settings, reference: str) -> str:
    """The name of the model that `reference` means, pulled first if it is not here yet.

    Raises PullFailed. A name that cannot be pulled is left for the server to refuse.
    """
    from myllm.models.pull_source import is_hub_address, parse_reference
    from myllm.models.registry import Registry

    registry = Registry(settings.models_dir)
    if not is_hub_address(reference) and _is_known(settings, registry, reference):
        return reference
    try:
        wanted = parse_reference(reference)
    except PullFailed:
        if "/" in reference:
            raise
        return reference
    try:
        _check_same(registry.find(wanted.name), wanted)
    except ModelNotFound:
        _pull(registry, wanted)
    return wanted.name


def _is_known(settings: Settings, registry: Registry, name: str) -> bool:
    """Whether the model is in the models folder, or the running server has it."""
    from urllib.parse import quote

    from myllm.cli.client import running_server

    try:
        registry.find(name)
    except ModelNotFound:
        server = running_server(settings, to_generate=True)
        if server is None:
            return False
        with closing(server):
            # If the server refuses the key, the next request reports it.
            return server.get(f"/api/models/{quote(name, safe='')}").status_code != 404
    return True


def _check_same(model: Model, wanted: PullSource) -> None:
    """Raises PullFailed unless `model` was pulled from the source that `wanted` names."""
    repo = (model.config.source or "").partition("@")[0]
    is_file = wanted.file is not None and wanted.file.lower().endswith(".gguf")
    names = {file.name for file in model.files}
    if repo != wanted.repo or (is_file and Path(wanted.file or "").name not in names):
        what = f"{wanted.repo}:{wanted.file}" if wanted.file else wanted.repo
        raise PullFailed(
            f"the model '{wanted.name}' is here, but not from {what}; run it by that name, or pull "
            f"the other one under a new name: myllm pull {what} --name NAME"
        )


def _pull(registry: Registry, wanted: PullSource) -> None:
    """Pull the model; on a terminal, ask the user first."""
    from myllm.cli.models import size_text
    from myllm.cli.pull_progress import show_progress
    from myllm.models.pull import pull, remote_files

    if sys.stdin.isatty() and sys.stderr.isatty():
        files = remote_files(wanted)
        total = size_text(sum(file.size for file in files))
        question = (
            f"{wanted.name} is not here yet. Pull {files[0].name} ({total}) of {wanted.repo}?"
        )
        if not typer.confirm(in_lines(question), default=True, err=True):
            say("Nothing was pulled", stderr=True)
            raise typer.Exit(EXIT_FAILED)
    with show_progress(wanted.name) as progress:
        pull(registry, wanted, on_progress=progress.show, say=progress.say)
