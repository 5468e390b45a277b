"""What one instance is to run: a model in a role, with explicit sizes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from myllm.models.registry import Model
from myllm.models.templates import template_flags

Role = Literal["generate", "embed"]

# Batches of an embedding engine hold a whole input, so its context is also its batch.
_LONGEST_EMBED_INPUT = 2048
# llama-server's own; more costs memory and hardly gains speed.
_LARGEST_PHYSICAL = 512


class InstanceKey(NamedTuple):
    """What tells instances apart: there is at most one live instance per key."""

    model: str
    role: Role

    def __str__(self) -> str:
        return self.model if self.role == "generate" else f"{self.model} ({self.role})"


@dataclass(frozen=True)
class InstanceSpec:
    """Everything llama-server is told. `context_size` is what one conversation gets."""

    key: InstanceKey
    model: Model
    context_size: int
    slots: int
    batch: int
    threads: int | None = None
    gpu: bool = False

    @property
    def physical_batch(self) -> int:
        """Tokens computed at once; an embedding needs its whole input at once."""
        return self.batch if self.key.role == "embed" else min(self.batch, _LARGEST_PHYSICAL)

    @property
    def file_stem(self) -> str:
        """A name for this instance's log."""
        return f"{self.key.model}.{self.key.role}"

    def argv(self, server: Path) -> tuple[str, ...]:
        """The command line, without the address to listen on.

        Everything that llama-server would choose by itself is said: its own choices of slots,
        context and memory change with the machine, and shared slots starve each other.
        """
        # fmt: off
        arguments = [
            str(server),
            "--model", str(self.model.gguf),
            "--alias", self.key.model,
            "--parallel", str(self.slots), "--no-kv-unified",
            "--ctx-size", str(self.context_size * self.slots),
            "--batch-size", str(self.batch), "--ubatch-size", str(self.physical_batch),
            "--fit", "off",
            "--cache-ram", "0",
            "--log-colors", "off",
        ]
        # fmt: on
        if not self.gpu:
            # Without mmap the predicted, the resident and the missing free memory are the same.
            arguments += ["--load-mode", "none"]
        threads = self.model.engine.threads or self.threads
        if threads is not None:
            arguments += ["--threads", str(threads)]
        if self.model.engine.gpu_layers is not None:
            arguments += ["--n-gpu-layers", str(self.model.engine.gpu_layers)]
        if self.key.role == "embed":
            arguments += ["--embeddings"]
            if not self.model.is_embedding_only:
                arguments += ["--pooling", "mean"]
        else:
            arguments += template_flags(self.model)
        return tuple(arguments)


def main_role(model: Model) -> Role:
    """What a model is for, if nobody says."""
    return "embed" if model.is_embedding_only else "generate"


def embed_context(model: Model) -> int:
    """Tokens that one input of an embedding instance may have."""
    return min(model.header.context_length or _LONGEST_EMBED_INPUT, _LONGEST_EMBED_INPUT)
