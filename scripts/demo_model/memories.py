"""Facts that a user mentions and asks for later: the model learns to copy from its context."""

from __future__ import annotations

import random
import string
from dataclasses import dataclass

from .knowledge import Knowledge, read

ONSETS = (
    *("b", "br", "c", "ch", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "kr", "l", "m", "n"),
    *("p", "pl", "qu", "r", "s", "sh", "sk", "st", "t", "tr", "v", "w", "x", "y", "z"),
)
VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "ia", "io", "ou")
CODAS = ("", "", "", "l", "m", "n", "nd", "r", "rk", "s", "t", "th", "x")
WORDINGS = read("memories")


@dataclass(frozen=True)
class Memory:
    """One fact to remember: how the user states it, and the later question and answer."""

    about: str
    told: str
    noted: str
    questions: tuple[str, ...]
    answer: str
    not_told: str


def memory(kind: str, value: str, rng: random.Random) -> Memory:
    wording = WORDINGS[kind]
    thing = rng.choice(wording.get("things", [kind]))

    def fill(text: str) -> str:
        return text.replace("{value}", value).replace("{thing}", thing)

    return Memory(
        about=thing,
        told=fill(rng.choice(wording["told"])),
        noted=fill(wording["noted"]),
        questions=tuple(map(fill, wording["asked"])),
        answer=fill(wording["answer"]),
        not_told=fill(wording["not_told"]),
    )


def random_memory(knowledge: Knowledge, rng: random.Random) -> Memory:
    kind = rng.choices(("name", "code", "called"), (35, 25, 40))[0]
    value = random_code(rng) if kind == "code" else random_name(knowledge, rng)
    return memory(kind, value, rng)


def echo(knowledge: Knowledge, rng: random.Random) -> tuple[str, str]:
    """A turn whose answer copies from its own question."""
    value = " ".join(random_name(knowledge, rng) for _ in range(rng.randrange(1, 5)))
    wording = WORDINGS["echo"]
    asked: str = rng.choice(wording["told"])
    return asked.replace("{value}", value), wording["answer"].replace("{value}", value)


def random_code(rng: random.Random) -> str:
    symbols = string.digits if rng.random() < 0.3 else string.ascii_uppercase
    return "".join(rng.choice(symbols) for _ in range(rng.randrange(3, 8)))


def random_name(knowledge: Knowledge, rng: random.Random) -> str:
    """A name that is not held out: a real one, one of syllables, or pieces of any words."""
    while True:
        makers = (lambda: rng.choice(knowledge.names), lambda: invented_name(rng))
        name = rng.choice((*makers, lambda: patched_name(knowledge, rng)))()
        if name not in knowledge.held_out_names:
            return name


def invented_name(rng: random.Random) -> str:
    """Syllables, some of them repeated, so that copying must look back further than one token."""
    count = rng.choices((1, 2, 3, 4), (1, 6, 5, 2))[0]
    pool = [syllable(rng) for _ in range(rng.choice((2, 3, 4, 4)))]
    return "".join(rng.choices(pool, k=count)).capitalize()


def patched_name(knowledge: Knowledge, rng: random.Random) -> str:
    """Pieces of words that the model knows; in a name they mean nothing, so it must copy them."""
    pieces = []
    for _ in range(rng.choice((2, 2, 3, 3, 4))):
        word = rng.choice(knowledge.all_words)
        start = rng.randrange(max(1, len(word) - 1))
        pieces.append(word[start : start + rng.choice((2, 3, 3, 4))])
    return "".join(pieces).capitalize()


def syllable(rng: random.Random) -> str:
    return rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS)
