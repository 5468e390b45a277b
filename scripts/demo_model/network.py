"""The network: a llama as llama.cpp computes it, small enough to train on two cores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """Sizes; widths are multiples of 256, because k-quants take blocks of 256 along a row."""

    vocabulary: int
    width: int = 256
    layers: int = 4
    heads: int = 4
    hidden: int = 512
    context: int = 2048
    rope_base: float = 100_000.0  # slow rotations, so that attention finds a name at any distance
    epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        return self.width // self.heads


def rotations(shape: Shape) -> Tensor:
    """One unit complex number per position and pair of neighbouring channels."""
    pairs = torch.arange(0, shape.head_width, 2, dtype=torch.float32) / shape.head_width
    angles = torch.outer(torch.arange(shape.context).float(), shape.rope_base**-pairs)
    return torch.polar(torch.ones_like(angles), angles)


def rotate(heads: Tensor, turns: Tensor) -> Tensor:
    """Interleaved RoPE: channels 2i and 2i+1 form a pair, llama.cpp's order for llama."""
    pairs = torch.view_as_complex(heads.float().view(*heads.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns).flatten(-2).to(heads.dtype)


class Layer(nn.Module):
    """Attention and a gated feed-forward, each on a normalised copy of the stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.attention_norm = nn.RMSNorm(shape.width, eps=shape.epsilon)
        self.query_key_value = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.attention_output = nn.Linear(shape.width, shape.width, bias=False)
        self.feed_norm = nn.RMSNorm(shape.width, eps=shape.epsilon)
        self.gate_up = nn.Linear(shape.width, 2 * shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, stream: Tensor, turns: Tensor) -> Tensor:
        stream = stream + self.attend(self.attention_norm(stream), turns)
        gate, up = self.gate_up(self.feed_norm(stream)).chunk(2, dim=-1)
        fed: Tensor = self.down(F.silu(gate) * up)
        return stream + fed

    def attend(self, stream: Tensor, turns: Tensor) -> Tensor:
        joined = self.query_key_value(stream)
        joined = joined.view(*stream.shape[:2], 3, self.heads, -1)
        query, key, value = joined.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(
            rotate(query, turns), rotate(key, turns), value, is_causal=True
        )
        out: Tensor = self.attention_output(mixed.transpose(1, 2).flatten(2))
        return out


def start_as_copier(first: Layer, second: Layer, turns: Tensor, shape: Shape) -> None:
    """Initialize three heads as a copying circuit; to find it by chance takes most of a training.

    Two heads of the first layer look one and two tokens back, by the fast rotations alone, and
    write down which tokens these are. One head of the second layer looks, by the slow rotations,
    for a place where the tokens before are those of now, and writes down what stands there.
    """
    size = shape.head_width
    frame = torch.linalg.qr(torch.randn(shape.width, shape.width))[0]
    frame[0] = 0.0
    token, before, earlier, found = frame.split(size, dim=1)
    look_back(first, 0, turns[1], token, before)
    look_back(first, 1, turns[2], token, earlier)
    query, key, value = (part[:size] for part in second.query_key_value.weight.chunk(3))
    some, others = slice(size // 2), slice(size // 2, size)
    query.zero_()
    key.zero_()
    query[others] = 2.0 * token.T[others] + 1.5 * before.T[some]
    key[others] = 2.0 * before.T[others] + 1.5 * earlier.T[some]
    value.copy_(found.T)
    second.attention_output.weight[:, :size] = 0.1 * found


def look_back(layer: Layer, head: int, turn: Tensor, read: Tensor, write: Tensor) -> None:
    """The head attends as far back as `turn` says, and copies from one subspace to another."""
    size = read.shape[1]
    rows = slice(head * size, (head + 1) * size)
    query, key, value = (part[rows] for part in layer.query_key_value.weight.chunk(3))
    fast = turn[: size // 8]
    query.zero_()
    key.zero_()
    query[: size // 4 : 2, 0] = 1.5
    key[: size // 4 : 2, 0] = 1.5 * fast.real
    key[1 : size // 4 : 2, 0] = 1.5 * fast.imag
    value.copy_(read.T)
    layer.attention_output.weight[:, rows] = 0.1 * write


class Network(nn.Module):
    """Token ids to logits; the output shares the embedding's weights."""

    turns: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=shape.epsilon)
        self.register_buffer("turns", rotations(shape), persistent=False)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Layers start with no output, except for the heads that copy."""
        for name, weight in self.named_parameters():
            if name.endswith(("attention_output.weight", "down.weight")):
                nn.init.zeros_(weight)
            elif weight.dim() == 2:
                nn.init.normal_(weight, std=0.1 if "embedding" in name else weight.shape[1] ** -0.5)
        self.embedding.weight[:, 0] = 0.5  # the same for every token, for the rotations to turn
        first, second, *_ = (layer for layer in self.layers if isinstance(layer, Layer))
        start_as_copier(first, second, self.turns, self.shape)

    def states(self, tokens: Tensor) -> Tensor:
        stream: Tensor = self.embedding(tokens)
        turns = self.turns[: tokens.shape[1]]
        for layer in self.layers:
            stream = layer(stream, turns)
        normed: Tensor = self.norm(stream)
        return normed

    def loss(self, tokens: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """The mean cross-entropy over the targets, by weight; a weight of 0 is not computed."""
        wanted = weights > 0
        logits = self.states(tokens)[wanted] @ self.embedding.weight.T
        losses = F.cross_entropy(logits.float(), targets[wanted], reduction="none")
        scale = weights[wanted]
        return (losses * scale).sum() / scale.sum()
