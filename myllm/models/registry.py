"""The models on disk, by name: `MODELS_DIR/<name>/`, and those that come with the program."""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
import uuid
from pathlib import Path
from typing import Final

from myllm.errors import AliasGiven, InvalidModel, InvalidRequest, ModelNotFound
from myllm.models.gguf import read_header
from myllm.models.gguf_header import Header
from myllm.models.model import Model, broken_model, load_model
from myllm.models.read_errors import unreadable

__all__ = ["BUILTIN_DIR", "Model", "Registry", "is_model_name", "untagged"]

BUILTIN_DIR: Final = Path(__file__).parent / "builtin"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_TAG: Final = ":latest"
_TRASH: Final = ".removed"
_WRITING_S: Final = 1.0

# What tells whether a file has changed: its name, inode, time in ns, size in bytes.
_Stamp = tuple[str, int, int, int]


def is_model_name(name: str) -> bool:
    """A name of this form cannot lead outside the model folder."""
    return _NAME.fullmatch(name) is not None


def untagged(name: str) -> str:
    """`name` without the `:latest` that clients of Ollama append; no model's name has a colon."""
    return name.removesuffix(_TAG)


class Registry:
    """Looks at the disk at every call, so that a model copied in is there at once; reads a
    model's files again only when they have changed, also those of a broken one. May be used from
    several threads."""

    def __init__(self, models_dir: Path, builtin_dir: Path = BUILTIN_DIR) -> None:
        self.models_dir = models_dir.absolute()
        self._builtin_dir = builtin_dir
        self._lock = threading.Lock()
        self._models: dict[str, tuple[tuple[_Stamp, ...], Model]] = {}
        self._broken: dict[str, tuple[tuple[_Stamp, ...], Model]] = {}
        self._headers: dict[Path, tuple[_Stamp, Header]] = {}

    def list(self) -> list[Model]:
        """All models by name; a broken one is among them and tells its `problem`.

        Raises InvalidModel when the model folder itself cannot be read.
        """
        return [self._load(*self._place(name)) for name in self.names()]

    def names(self) -> tuple[str, ...]:
        """The names of all models, also of broken ones; no file is read.

        Raises InvalidModel when the model folder itself cannot be read.
        """
        names: set[str] = set()
        for parent in (self.models_dir, self._builtin_dir):
            try:
                names |= {
                    name
                    for name in os.listdir(parent)
                    if is_model_name(name) and os.path.isdir(f"{parent}/{name}")
                }
            except FileNotFoundError:
                continue
            except OSError as failure:
                raise InvalidModel(
                    f"the model folder {parent} cannot be read: {failure.strerror}"
                ) from failure
        return tuple(sorted(names))

    def get(self, name: str) -> Model:
        """The model of this name or alias, with or without `:latest`. The user's folder wins over
        a built-in model of the same name, and a name over an alias.

        Raises ModelNotFound, telling which there are, and InvalidModel when it is unusable.
        """
        model = self.find(name)
        if model.problem is not None:
            raise InvalidModel(model.problem)
        return model

    def find(self, name: str) -> Model:
        """The same, but an unusable model is returned and tells its `problem`."""
        try:
            return self._load(*self._existing(name))
        except ModelNotFound:
            if (model := self._called(name)) is None:
                raise
            return model

    def name_of(self, name: str) -> str:
        """The name of the model that `name` means; of one that is not here, `name` untagged."""
        try:
            return self.find(name).name
        except (ModelNotFound, InvalidModel):
            return untagged(name)

    def aliases_of(self, model: Model) -> tuple[str, ...]:
        """The aliases by which `get` finds `model`, untagged: those that are no other model's
        name, and no alias of another one that comes before it."""
        names = {untagged(alias) for alias in model.config.aliases}
        return tuple(sorted(name for name in names if self.find(name).name == model.name))

    def removable(self, name: str) -> str:
        """The name under which `remove` will delete this model.

        Raises ModelNotFound, AliasGiven for an alias, since deleting the model behind it would
        surprise, and InvalidRequest for a model that comes with the program.
        """
        try:
            _, builtin = self._existing(name)
        except ModelNotFound:
            if (model := self._called(name)) is None:
                raise
            raise AliasGiven(untagged(name), model.name) from None
        if builtin:
            raise InvalidRequest(f"Model '{untagged(name)}' comes with MyLLM and cannot be removed")
        return untagged(name)

    def remove(self, name: str) -> None:
        """Delete the folder of `name`, also of a broken model; links are not followed.

        Raises what `take_away` and `empty_trash` raise.
        """
        self.take_away(name)
        self.empty_trash()

    def take_away(self, name: str) -> None:
        """Let there be no model `name` any more, in one step that takes no time; its files go with
        `empty_trash`.

        Raises what `removable` raises, and InvalidModel when the folder cannot be moved; then
        nothing has changed.
        """
        folder = Path(self._place(self.removable(name))[0])
        trash = self.models_dir / _TRASH
        try:
            if folder.is_symlink():
                folder.unlink()
                return
            trash.mkdir(exist_ok=True)
            folder.rename(trash / uuid.uuid4().hex)
        except OSError as failure:
            raise InvalidModel(f"{folder} cannot be removed: {failure.strerror}") from failure

    def empty_trash(self) -> None:
        """Delete what was taken away. Raises InvalidModel; the rest goes at the next removal."""
        trash = self.models_dir / _TRASH
        try:
            shutil.rmtree(trash)
        except FileNotFoundError:
            pass  # a link was taken away, or another removal was quicker
        except OSError as failure:
            raise InvalidModel(f"{trash} cannot be emptied: {failure.strerror}") from failure

    # Every request asks for its model; making a `Path` takes longer than looking at the disk.

    def _place(self, name: str) -> tuple[str, bool]:
        """The folder of `name`, and whether it is a built-in one."""
        own = f"{self.models_dir}/{name}"
        return (own, False) if os.path.isdir(own) else (f"{self._builtin_dir}/{name}", True)

    def _existing(self, name: str) -> tuple[str, bool]:
        bare = untagged(name)
        if is_model_name(bare):
            folder, builtin = self._place(bare)
            if not builtin or os.path.isdir(folder):
                return folder, builtin
        raise ModelNotFound(name, [*self.names()])

    def _called(self, alias: str) -> Model | None:
        """The first model by name that has this alias."""
        bare = untagged(alias)
        return next((m for m in self.list() if bare in map(untagged, m.config.aliases)), None)

    def _load(self, folder: str, builtin: bool) -> Model:
        with self._lock:
            known, broken = self._models.get(folder), self._broken.get(folder)
        stamps: tuple[_Stamp, ...] = ()
        settled = False
        try:
            stamps = _stamps(folder)
            if known is not None and known[0] == stamps:
                return known[1]
            if broken is not None and broken[0] == stamps:
                return broken[1]
            settled = _are_settled(stamps)
            model = load_model(Path(folder), builtin, self._header)
        except (InvalidModel, OSError) as failure:
            if known is not None and _being_written(stamps):
                return known[1]
            told = failure if isinstance(failure, InvalidModel) else unreadable(folder, failure)
            model = broken_model(Path(folder), builtin, told.detail)
            # A reason that lies in the files themselves lasts as long as they do.
            if stamps and settled and not isinstance(failure.__cause__, OSError):
                with self._lock:
                    self._broken[folder] = (stamps, model)
            return model
        with self._lock:
            self._models[folder] = (stamps, model)
            self._broken.pop(folder, None)
        return model

    def _header(self, path: Path) -> Header:
        try:
            stamp = _stamp(path.name, path.stat())
        except OSError as failure:
            raise unreadable(path, failure) from failure
        with self._lock:
            known = self._headers.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        header = read_header(path)
        with self._lock:
            self._headers[path] = (stamp, header)
        return header


def _being_written(stamps: tuple[_Stamp, ...]) -> bool:
    """Whether a file was emptied just now: editors do so before they write it anew, and a model
    that was whole until then stays what it was for that moment."""
    now_ns = time.time_ns()
    return any(
        size == 0 and now_ns - changed_ns < _WRITING_S * 1_000_000_000
        for _, _, changed_ns, size in stamps
    )


def _are_settled(stamps: tuple[_Stamp, ...]) -> bool:
    """Whether no file was changed just now: another change might leave the same time and size."""
    now_ns = time.time_ns()
    return all(abs(now_ns - changed_ns) > _WRITING_S * 1e9 for _, _, changed_ns, _ in stamps)


def _stamp(name: str, status: os.stat_result) -> _Stamp:
    return name, status.st_ino, status.st_mtime_ns, status.st_size


def _stamps(folder: str) -> tuple[_Stamp, ...]:
    """The stamps of all entries of `folder`; a link that leads nowhere counts as not there."""
    stamps = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    stamps.append(_stamp(entry.name, entry.stat()))
                except FileNotFoundError:
                    continue
    except OSError as failure:
        raise unreadable(folder, failure) from failure
    return tuple(sorted(stamps))
