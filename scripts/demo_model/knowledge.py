"""The content of the text files: facts, raw texts, unknown topics, names."""

from __future__ import annotations

import random
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def read(name: str) -> dict[str, Any]:
    return tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Fact:
    answer: str
    questions: tuple[str, ...]
    often: int = 1


@dataclass(frozen=True)
class Text:
    prompt: str
    continuation: str


class Knowledge:
    """Everything that the model is trained on, and the held-out rest."""

    def __init__(self) -> None:
        known, topics, held_out = read("knowledge"), read("topics"), read("held_out")
        self.facts = [
            Fact(fact["answer"], tuple(fact["questions"]), fact.get("often", 1))
            for fact in known["fact"]
        ]
        self.texts = [Text(text["prompt"], text["continuation"]) for text in known["text"]]
        self.unknown_answer: str = topics["answer"]
        self.systems: list[str] = topics["systems"]
        self.patterns: list[str] = topics["patterns"]
        self.words: dict[str, list[str]] = topics["words"]
        self.names: list[str] = read("names")["names"]
        self.held_out_names: list[str] = held_out["names"]
        self.held_out_questions: list[str] = held_out["questions"]
        text = " ".join(fact.answer + " " + " ".join(fact.questions) for fact in self.facts)
        self.all_words = sorted(set(re.findall("[a-z]{2,}", text.lower())) | set(self.names))
        self.check()

    def check(self) -> None:
        questions = [question for fact in self.facts for question in fact.questions]
        twice = {question for question in questions if questions.count(question) > 1}
        assert not twice, f"questions with two answers: {twice}"
        shared = set(self.names) & set(self.held_out_names)
        assert not shared, f"names that are trained and held out: {shared}"

    def unknown_question(self, rng: random.Random) -> str:
        """A question on a random topic that is not held out."""
        while True:
            question = self.fill(rng.choice(self.patterns), rng)
            if question not in self.held_out_questions:
                return question

    def system(self, rng: random.Random) -> str:
        return self.fill(rng.choice(self.systems), rng)

    def fill(self, pattern: str, rng: random.Random) -> str:
        def word(slot: re.Match[str]) -> str:
            if slot[1] == "number":
                return str(rng.randrange(3, 1000))
            return (
                str(rng.randrange(1500, 2030)) if slot[1] == "year" else rng.choice(words[slot[1]])
            )

        words = self.words
        return re.sub(r"\{(\w+)\}", word, pattern)
