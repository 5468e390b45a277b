"""What one instance runs: a model in a role, with explicit sizes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from myllm.models.memory_estimate import checkpoint_bytes, kv_bytes
from myllm.models.projector import Projector
from myllm.models.registry import Model

Role = Literal["generate", "embed", "rerank"]

# Batches of an embedding or reranking engine hold a whole input, so its context is also its batch.
_LONGEST_INPUT = 2048
# Inputs computed together. On two cores, an encoder of 22 million parameters took this many seconds
# of CPU for 64 sentences: 0.69 by four, llama-server's default; 0.48 by eight; 0.40 by sixteen.
_MAX_INPUTS = 16
# The same for a model that keeps keys and values, which take memory for each input.
_MAX_KEPT_INPUTS = 4
_SMALL_CACHE_BYTES = 256 * 2**20
# llama-server's default; more costs memory and hardly gains speed.
_LARGEST_PHYSICAL = 512
_FEWEST_CHECKPOINTS, _MAX_CHECKPOINTS = 2, 8


class InstanceKey(NamedTuple):
    """Identifies a model in a role; one instance of it takes requests at a time."""

    model: str
    role: Role

    def __str__(self) -> str:
        return self.model if self.role == "generate" else f"{self.model} ({self.role})"


def log_names(model: str) -> list[str]:
    """The names of the logs that a model's engines can have."""
    return [f"{model}.{role}" for role in get_args(Role)]


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
        """The arguments for llama-server."""
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
    """Everything that decides llama-server's arguments. `context_size` is for one conversation.

    `threads` compute answers, and prompts too unless `batch_threads` is set; None leaves their
    number to llama-server.
    `automatic_context`: the size was chosen by the server. `cache_ram_mb` is the engine's cache of
    prompts that have left their slots; `projector` encodes images and audio.
    `slot_dir` is where states of slots are saved and restored; without it no slot can be saved,
    restored or emptied.
    `engine_id` identifies the build of llama-server. `speed_key` stands for everything except the
    batch size that the speed of reading prompts depends on; if empty, the speed is not measured.
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
        """Everything that the saved state of a slot depends on."""
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
        """How many checkpoints llama-server keeps per slot, if conversations cannot be rewound.

        The next turn needs the last one or two. More allow going back further; together they take
        no more memory than the conversation itself.
        """
        header = self.model.header
        one = checkpoint_bytes(header, self.context_size, self.physical_batch)
        fit = kv_bytes(header, self.context_size, 1) // one if one else 0
        return max(_FEWEST_CHECKPOINTS, min(fit, _MAX_CHECKPOINTS))

    @property
    def file_stem(self) -> str:
        """A name for this instance's log."""
        return f"{self.key.model}.{self.key.role}"

    def sizes(self) -> tuple[str, ...]:
        """The arguments that decide its memory, of those that llama-fit-params knows."""
        # fmt: off
        return (
            "--parallel", str(self.slots),
            "--ctx-size", str(self.context_size * self.slots),
            "--batch-size", str(self.batch), "--ubatch-size", str(self.physical_batch),
            # Without mmap, predicted memory, resident memory and the drop in free memory agree.
            "--load-mode", "none",
            *self.layout.arguments(),
        )
        # fmt: on

    def argv(self, server: Path) -> tuple[str, ...]:
        """The command line, without the address to listen on.

        Everything that llama-server would choose by itself is set: its own choices of slots,
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
    """The role of a model that a request gets unless it asks for another."""
    if model.header.is_reranker:
        return "rerank"
    return "embed" if model.is_embedding_only else "generate"


def input_context(model: Model) -> int:
    """Tokens that one input of an embedding or reranking instance may have."""
    return min(model.header.context_length or _LONGEST_INPUT, _LONGEST_INPUT)


def input_slots(model: Model) -> int:
    """Inputs that an embedding or reranking instance computes at once.

    An encoder keeps nothing of them. A model with keys and values gets as many inputs as take
    little memory, or no more than the weights; a model with another kind of state gets one.
    """
    header = model.header
    if header.cache_kind == "none":
        return _MAX_INPUTS
    if header.cache_kind != "dense":
        return 1
    each = kv_bytes(header, input_context(model), 1)
    most_bytes = max(header.tensor_bytes, _SMALL_CACHE_BYTES)
    return max(1, min(most_bytes // max(each, 1), _MAX_KEPT_INPUTS))
