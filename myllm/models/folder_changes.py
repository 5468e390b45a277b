"""How a model's folder has changed since its engine was started."""

from __future__ import annotations

from myllm.errors import InvalidModel, ModelNotFound
from myllm.models.config import ModelConfig
from myllm.models.model import CONFIG, Model
from myllm.models.registry import Registry


def warnings_on(registry: Registry, loaded: Model) -> tuple[str, ...]:
    """One sentence for each difference between `loaded` and its folder."""
    try:
        found = registry.find(loaded.name)
    except ModelNotFound:
        return (_lost(f"{loaded.path} is gone"),)
    except InvalidModel as failure:
        return (_lost(failure.detail),)
    if found.problem is not None:
        return (_lost(found.problem),)
    return tuple(
        f"{change} since the model was loaded; run 'myllm reload {loaded.name}' to apply the change"
        for change in _changes(loaded, found)
    )


def _lost(problem: str) -> str:
    return f"{problem}; the running engine goes on, but the model cannot be loaded again"


def _changes(loaded: Model, found: Model) -> list[str]:
    if found.path != loaded.path:
        return [f"the model of this name is another one, in {found.path},"]
    changes = []
    same_files = (found.files, found.digest) == (loaded.files, loaded.digest)
    if not same_files:
        changes.append(f"{found.gguf.name} has been replaced")
    if found.projector != loaded.projector:
        names = [each.projector.path.name for each in (found, loaded) if each.projector]
        changes.append(f"the projector {names[0]} has been added, removed or replaced")
    template = found.config.template
    if template == loaded.config.template is not None and found.chat != loaded.chat:
        changes.append(f"the template {template} has changed")
    same_labels = (found.family, found.quantization) == (loaded.family, loaded.quantization)
    if _without_labels(found) != _without_labels(loaded) or (same_files and not same_labels):
        changes.append(f"{CONFIG} has changed")
    return changes


def _without_labels(model: Model) -> ModelConfig:
    """The configuration without its name, which is ignored, and the keys that the GGUF may set."""
    return model.config.model_copy(update={"name": None, "family": None, "quantization": None})
