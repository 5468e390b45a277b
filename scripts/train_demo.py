#!/usr/bin/env python3
"""Train the demo model and write myllm/models/builtin/demo/demo.gguf.

Needs packages that MyLLM itself does not, so run it in an environment of its own:

    python3 -m venv /tmp/demo && /tmp/demo/bin/pip install torch==2.13.0 tokenizers gguf numpy
    /tmp/demo/bin/python scripts/train_demo.py

On two CPU cores it takes under 30 minutes. The text it learns is in scripts/demo_model/*.toml.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

try:
    import gguf  # noqa: F401
    import numpy  # noqa: F401
    import tokenizers  # noqa: F401
    import torch
except ModuleNotFoundError as missing:
    sys.exit(f"{missing.name} is missing; see the top of this file: pip install torch==2.13.0 …")

from demo_model.conversations import Writer
from demo_model.evaluation import Examiner
from demo_model.export import write_gguf
from demo_model.knowledge import Knowledge
from demo_model.memories import random_memory
from demo_model.network import Network, Shape
from demo_model.tokens import Codec
from demo_model.tokens import train as train_tokenizer
from demo_model.training import LEARN, POLISH, train

TARGET = Path(__file__).parent.parent / "myllm/models/builtin/demo/demo.gguf"
VOCABULARY = 1024
# At most this many times two minutes of polish, until the model passes the exam.
LESSONS = 5


def tokenizer_texts(knowledge: Knowledge) -> list[str]:
    """The texts for the vocabulary: everything the model reads, with only a few names."""
    rng = random.Random(3)
    texts = [question for fact in knowledge.facts for question in fact.questions]
    texts += [fact.answer for fact in knowledge.facts for _ in range(4)]
    texts += [text.prompt + text.continuation for text in knowledge.texts]
    texts += [knowledge.unknown_question(rng) for _ in range(500)]
    texts += [knowledge.unknown_answer] * 4 + knowledge.systems
    for _ in range(200):
        entry = random_memory(knowledge, rng)
        texts += [entry.told, entry.noted, entry.answer, *entry.questions]
    return texts


def main() -> None:
    options = argparse.ArgumentParser(description="Train the demo model.")
    options.add_argument("--output", type=Path, default=TARGET)
    output: Path = options.parse_args().output
    torch.manual_seed(1)
    torch.set_num_threads(2)
    knowledge = Knowledge()
    codec = Codec(train_tokenizer(tokenizer_texts(knowledge), VOCABULARY))
    network = Network(Shape(VOCABULARY))
    print(f"{sum(weight.numel() for weight in network.parameters()):,} parameters")
    train(network, Writer(knowledge, codec, seed=2), LEARN)
    for lesson in range(LESSONS):
        train(network, Writer(knowledge, codec, seed=4 + lesson), POLISH, peak=0.3)
        if Examiner(network, codec, knowledge).report():
            break
    write_gguf(network, codec.tokenizer, output)
    print(f"{output}: {output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
