"""The training: which rows in which order, and the optimiser."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Parameter

from .conversations import Row, Writer
from .network import Network


@dataclass(frozen=True)
class Phase:
    """Steps of `rows` long rows, and of `starts`: short rows that begin a conversation."""

    steps: int
    length: int
    rows: int
    starts: int = 0


# Short rows teach the text; long rows, the last third of the tokens, teach finding distant names.
LEARN = (Phase(700, 512, 8), Phase(200, 1024, 4), Phase(560, 2048, 2))
# After so many long rows the model must practise the beginnings of conversations again.
POLISH = (Phase(150, 2048, 1, starts=8),)
START_LENGTH = 320
WARM_UP = 40
MATRIX_RATE, VECTOR_RATE = 0.003, 0.003


class Muon(torch.optim.Optimizer):
    """Momentum whose step is made orthogonal, for matrices: few steps teach a small model much."""

    def __init__(self, matrices: list[Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for matrix in group["params"]:
                mean = self.state[matrix].setdefault("mean", torch.zeros_like(matrix))
                mean.lerp_(matrix.grad, 1 - group["momentum"])
                ahead = matrix.grad.lerp(mean, group["momentum"])
                matrix.add_(square_blocks(ahead), alpha=-group["lr"])


def square_blocks(matrix: Tensor) -> Tensor:
    """Orthogonalize each square block by itself, because fused projections are several matrices."""
    side = min(matrix.shape)
    tall = matrix.shape[0] > matrix.shape[1]
    blocks = torch.stack(torch.split(matrix if tall else matrix.T, side))
    flat = orthogonal(blocks).flatten(0, 1)
    return flat if tall else flat.T


def orthogonal(blocks: Tensor, rounds: int = 5) -> Tensor:
    """Approximately the nearest orthogonal matrix, by a Newton-Schulz iteration."""
    turned = (blocks / (blocks.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
    for _ in range(rounds):
        gram = turned @ turned.mT
        turned = 3.4445 * turned + (-4.775 * gram + 2.0315 * gram @ gram) @ turned
    whole: Tensor = turned.float()
    return whole


def optimizers(network: Network) -> list[torch.optim.Optimizer]:
    hidden = [weight for weight in network.layers.parameters() if weight.dim() == 2]
    others = [weight for weight in network.parameters() if weight.dim() == 1]
    others += network.embedding.parameters()
    adam = torch.optim.AdamW(others, lr=VECTOR_RATE, betas=(0.9, 0.98), weight_decay=0.0)
    return [Muon(hidden, lr=MATRIX_RATE), adam]


def rate(step: int, steps: int) -> float:
    """The learning rate's factor: rises, stays at 1, and falls over the last half."""
    return min(1.0, (step + 1) / WARM_UP, 2 * (steps - step) / steps)


def batches(writer: Writer, phase: Phase) -> list[list[Row]]:
    long = [writer.row(phase.length + 1) for _ in range(phase.rows)]
    short = [writer.start(START_LENGTH + 1) for _ in range(phase.starts)]
    return [rows for rows in (long, short) if rows]


def train(network: Network, writer: Writer, phases: tuple[Phase, ...], peak: float = 1.0) -> None:
    """Train through the phases, with learning rates of at most `peak` times their usual values."""
    steps = sum(phase.steps for phase in phases)
    order = [phase for phase in phases for _ in range(phase.steps)]
    tools = optimizers(network)
    bases = [tool.param_groups[0]["lr"] * peak for tool in tools]
    began, tokens, mean = time.monotonic(), 0, 0.0
    for step, phase in enumerate(order):
        for tool, base in zip(tools, bases, strict=True):
            tool.param_groups[0]["lr"] = base * rate(step, steps)
        loss = one_step(network, batches(writer, phase), tools)
        tokens += phase.length * phase.rows + START_LENGTH * phase.starts
        mean = loss if step == 0 else 0.9 * mean + 0.1 * loss
        if step % 20 == 0 or step == steps - 1:
            took = time.monotonic() - began
            speed = f"{tokens / took:.0f} tokens/s"
            print(f"{took:5.0f} s  step {step:4}  loss {mean:.4f}  {speed}", flush=True)


def one_step(
    network: Network, groups: list[list[Row]], tools: list[torch.optim.Optimizer]
) -> float:
    total = 0.0
    for rows in groups:
        tokens = torch.tensor([row.tokens for row in rows])
        weights = torch.tensor([row.weights for row in rows])
        with torch.autocast("cpu", torch.bfloat16):
            loss = network.loss(tokens[:, :-1], tokens[:, 1:], weights[:, 1:])
        torch.autograd.backward(loss)
        total += float(loss.detach())
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    for tool in tools:
        tool.step()
        tool.zero_grad()
    return total / len(groups)
