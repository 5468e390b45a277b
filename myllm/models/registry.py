"""The models on disk, by name: `MODELS_DIR/<name>/`, and those that come with MyLLM."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from pathlib import Path
from typing import Final

from myllm.errors import AliasGiven, InvalidModel, InvalidRequest, ModelNotFound
from myllm.models.model import Model
from myllm.models.model_cache import ModelCache

__all__ = ["BUILTIN_DIR", "Model", "Registry", "is_model_name", "untagged"]

BUILTIN_DIR: Final = Path(__file__).parent / "builtin"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_TAG: Final = ":latest"
_TRASH: Final = ".removed"


def is_model_name(name: str) -> bool:
    """A name of this form cannot lead outside the model folder."""
    return _NAME.fullmatch(name) is not None


def untagged(name: str) -> str:
    """`name` without the `:latest` that Ollama's clients append; no model's name has a colon."""
    return name.removesuffix(_TAG)


class Registry:
    """The models by name or alias.

    Every call looks at the disk, so a new model is available at once; the files of a model, even
    of a broken one, are read again only after a change. Safe to use from several threads.
    """

    def __init__(self, models_dir: Path, builtin_dir: Path = BUILTIN_DIR) -> None:
        self.models_dir = models_dir.absolute()
        self._builtin_dir = builtin_dir
        self._cache = ModelCache()

    def list(self) -> list[Model]:
        """All models in the order of their names; a broken one has a `problem`.

        Raises InvalidModel when the model folder itself cannot be read.
        """
        return [self._cache.load(*self._folder_of(name)) for name in self.names()]

    def names(self) -> tuple[str, ...]:
        """The names of all models, including broken ones; reads no file.

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
        """The model of this name or alias, with or without `:latest`. A user's model takes
        precedence over a built-in one of the same name, and a name over an alias.

        Raises ModelNotFound, which lists the models, and InvalidModel when the model is unusable.
        """
        model = self.find(name)
        if model.problem is not None:
            raise InvalidModel(model.problem)
        return model

    def find(self, name: str) -> Model:
        """The same, but return an unusable model too, with its `problem`."""
        try:
            return self._cache.load(*self._existing(name))
        except ModelNotFound:
            if (model := self._with_alias(name)) is None:
                raise
            return model

    def name_of(self, name: str) -> str:
        """The name of the model that `get` would find; of an unknown one, `name` untagged."""
        try:
            return self.find(name).name
        except (ModelNotFound, InvalidModel):
            return untagged(name)

    def aliases(self) -> dict[str, tuple[str, ...]]:
        """The aliases by which `get` finds each model, untagged and sorted, by its name: all but
        names of models and aliases of models that come before it.

        Raises InvalidModel when the model folder itself cannot be read.
        """
        models = self.list()
        taken, aliases = {model.name for model in models}, dict[str, tuple[str, ...]]()
        for model in models:
            own = set(map(untagged, model.config.aliases)) - taken
            taken |= own
            aliases[model.name] = tuple(sorted(own))
        return aliases

    def aliases_of(self, model: Model) -> tuple[str, ...]:
        """The same of `model`. Raises the same."""
        return self.aliases().get(model.name, ()) if model.config.aliases else ()

    def removable(self, name: str) -> str:
        """The name under which `remove` will delete this model.

        Raises ModelNotFound, AliasGiven for an alias, because deleting its model would be a
        surprise, and InvalidRequest for a model that comes with MyLLM.
        """
        try:
            _, builtin = self._existing(name)
        except ModelNotFound:
            if (model := self._with_alias(name)) is None:
                raise
            raise AliasGiven(untagged(name), model.name) from None
        if builtin:
            raise InvalidRequest(f"Model '{untagged(name)}' comes with MyLLM and cannot be removed")
        return untagged(name)

    def remove(self, name: str) -> None:
        """Delete the folder of `name`, even of a broken model; links are not followed.

        Raises what `move_to_trash` and `empty_trash` raise.
        """
        self.move_to_trash(name)
        self.empty_trash()

    def move_to_trash(self, name: str) -> None:
        """Remove the model `name` in one quick step; `empty_trash` deletes its files.

        Raises what `removable` raises, and InvalidModel when the folder cannot be moved; then
        nothing has changed.
        """
        folder = Path(self._folder_of(self.removable(name))[0])
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
        """Delete the removed files. Raises InvalidModel; the next removal then deletes the rest."""
        trash = self.models_dir / _TRASH
        try:
            shutil.rmtree(trash)
        except FileNotFoundError:
            pass  # the model was a link, or another removal was faster
        except OSError as failure:
            raise InvalidModel(f"{trash} cannot be emptied: {failure.strerror}") from failure

    # Every request looks up its model, and creating a `Path` takes longer than asking the disk.

    def _folder_of(self, name: str) -> tuple[str, bool]:
        """The folder of `name`, and whether it is a built-in one."""
        own = f"{self.models_dir}/{name}"
        return (own, False) if os.path.isdir(own) else (f"{self._builtin_dir}/{name}", True)

    def _existing(self, name: str) -> tuple[str, bool]:
        bare = untagged(name)
        if is_model_name(bare):
            folder, builtin = self._folder_of(bare)
            if not builtin or os.path.isdir(folder):
                return folder, builtin
        raise ModelNotFound(name, [*self.names()])

    def _with_alias(self, alias: str) -> Model | None:
        """The first model, in the order of names, that has this alias."""
        bare = untagged(alias)
        return next((m for m in self.list() if bare in map(untagged, m.config.aliases)), None)
