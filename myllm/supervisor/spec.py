"""What one instance is to run: a model in a role, with explicit sizes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from myllm.models.memory_estimate import checkpoint_bytes, kv_bytes
from myllm.models.projector import Projector
from myllm.models.registry import Model

Role = Literal["generate", "embed", "rerank"]

# Batches of an embedding or reranking engine hold a whole input, so its context is also its batch.
_LONGEST_INPUT = 2048
# Inputs computed together. On two cores, seconds of CPU that 64 sentences took an encoder of 22
# million parameters: 0.69 by four, which is llama-server's default, 0.48 by eight, 0.40 by sixteen.
_MOST_INPUTS = 16
# Of a model that keeps keys and values, which take memory for each of them.
_MOST_KEPT_INPUTS = 4
_SMALL_CACHE_BYTES = 256 * 2**20
# llama-server's own; more costs memory and hardly gains speed.
_LARGEST_PHYSICAL = 512
_FEWEST_CHECKPOINTS, _MOST_CHECKPOINTS = 2, 8


class InstanceKey(NamedTuple):
    """What tells instances apart: there is at most one live instance per key."""

    model: str
    role: Role

    def __str__(self) -> str:
        return self.model if self.role == "generate" else f"{self.model} ({self.role})"


@dataclass(frozen=True)
class Layout:
    """Where a model's layers go; None leaves it to llama-server.

    `devices` are llama.cpp's names of the GPUs to use, none of them when empty; `tensor_split`
    has a share for each.
    """

    devices: tuple[str, ...] | None = None
    gpu_layers: int | None = None
    tensor_split: tuple[int, ...] | None = None

    def arguments(self) -> list[str]:
        """The same for llama-server."""
        arguments = []
        if self.devices is not None:
            arguments += ["--device", ",".join(self.devices) or "none"]
        if self.gpu_layers is not None:
            arguments += ["--n-gpu-layers", str(self.gpu_layers)]
        if self.tensor_split is not None:
            arguments += ["--tensor-split", ",".join(map(str, self.tensor_split))]
        return arguments


@dataclass(frozen=True)
class InstanceSpec:
    """Everything llama-server is told. `context_size` is what one conversation gets.

    `threads` compute answers, and prompts where `batch_threads` does not say otherwise; None
    leaves their number to llama-server.
    `automatic_context` says that nobody asked for that size. `cache_ram_mb` is the engine's
    store of prompts that have left their slots; `projector` is what it sees and hears with.
    `slot_dir` is where states of slots are saved and read back; without it no slot can be
    saved, read back or emptied.
    `engine_id` tells one build of llama-server from another. `speed_key` stands for all that
    the speed of reading prompts depends on but the batch size; without it that is not measured.
    """

    key: InstanceKey
    model: Model
    context_size: int
    slots: int
    batch: int
    threads: int | None = None
    batch_threads: int | None = None
    automatic_context: bool = False
    layout: Layout = Layout()
    cache_ram_mb: int = 0
    projector: Projector | None = None
    slot_dir: Path | None = None
    engine_id: str = ""
    speed_key: str = ""

    @property
    def state_key(self) -> str:
        """All that the saved state of a slot depends on."""
        projector = f" {self.projector.digest}" if self.projector else ""
        return f"{self.model.digest}{projector} {self.engine_id} {self.context_size}"

    @property
    def physical_batch(self) -> int:
        """Tokens computed at once; an embedding or a score needs its whole input at once."""
        if self.key.role != "generate":
            return self.batch
        return min(self.batch, _LARGEST_PHYSICAL)

    @property
    def checkpoints(self) -> int:
        """How many states llama-server keeps per slot of a conversation that cannot be rewound.

        The next turn needs the last one or two. More let one go back further; together they
        take no more than the conversation itself.
        """
        header = self.model.header
        one = checkpoint_bytes(header, self.context_size, self.physical_batch)
        fit = kv_bytes(header, self.context_size, 1) // one if one else 0
        return max(_FEWEST_CHECKPOINTS, min(fit, _MOST_CHECKPOINTS))

    @property
    def file_stem(self) -> str:
        """A name for this instance's log."""
        return f"{self.key.model}.{self.key.role}"

    def sizes(self) -> tuple[str, ...]:
        """The arguments that decide how much memory it takes, of those llama-fit-params knows."""
        # fmt: off
        return (
            "--parallel", str(self.slots),
            "--ctx-size", str(self.context_size * self.slots),
            "--batch-size", str(self.batch), "--ubatch-size", str(self.physical_batch),
            # Without mmap the predicted, the resident and the missing free memory are the same.
            "--load-mode", "none",
            *self.layout.arguments(),
        )
        # fmt: on

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
            *self.sizes(),
            # Inputs that shared one batch but not one cache would be cut into pieces of one length,
            # and a vector is made of what is computed at once. The cache has room for all of them.
            "--no-kv-unified" if self.key.role == "generate" else "--kv-unified",
            "--fit", "off",
            "--cache-ram", str(self.cache_ram_mb),
            "--ctx-checkpoints", str(self.checkpoints),
            "--log-colors", "off",
            "--metrics",
        ]
        # fmt: on
        threads = self.model.config.engine.threads or self.threads
        if threads is not None:
            arguments += ["--threads", str(threads)]
        if self.batch_threads is not None and self.model.config.engine.threads is None:
            arguments += ["--threads-batch", str(self.batch_threads)]
        if self.slot_dir is not None:
            arguments += ["--slot-save-path", f"{self.slot_dir}/"]
        if self.projector is not None:
            arguments += ["--mmproj", str(self.projector.path)]
        match self.key.role:
            case "generate":
                arguments += self.model.chat.flags
            case "embed":
                arguments += ["--embeddings"]
                if self.model.header.pooling in (None, "none"):
                    arguments += ["--pooling", "mean"]
            case "rerank":
                arguments += ["--reranking"]
        return tuple(arguments)


def main_role(model: Model) -> Role:
    """What a model is for, if nobody says."""
    if model.header.is_reranker:
        return "rerank"
    return "embed" if model.is_embedding_only else "generate"


def input_context(model: Model) -> int:
    """Tokens that one input of an embedding or reranking instance may have."""
    return min(model.header.context_length or _LONGEST_INPUT, _LONGEST_INPUT)


def input_slots(model: Model) -> int:
    """Inputs that an embedding or reranking instance computes at once.

    An encoder keeps nothing of them. Keys and values are kept for as many as take little memory or
    no more than the weights; what else a model keeps, for one.
    """
    header = model.header
    if header.cache_kind == "none":
        return _MOST_INPUTS
    if header.cache_kind != "dense":
        return 1
    each = kv_bytes(header, input_context(model), 1)
    room = max(header.tensor_bytes, _SMALL_CACHE_BYTES)
    return max(1, min(room // max(each, 1), _MOST_KEPT_INPUTS))
