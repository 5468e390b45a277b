"""Rows of training tokens: conversations that mention facts, change the subject and ask back."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass, field

from .knowledge import Knowledge
from .memories import Memory, echo, memory, random_memory, random_name
from .tokens import Codec


@dataclass
class Row:
    """Tokens with a weight each: only answers are trained, questions have a weight of 0."""

    length: int
    tokens: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    @property
    def left(self) -> int:
        return self.length - len(self.tokens)

    def add(self, tokens: list[int], weight: float) -> None:
        self.tokens += tokens
        self.weights += [weight] * len(tokens)


@dataclass
class Due:
    memory: Memory
    at: int


class Writer:
    """Writes random conversations; one row holds one conversation, after some short ones."""

    def __init__(self, knowledge: Knowledge, codec: Codec, seed: int) -> None:
        self.knowledge = knowledge
        self.codec = codec
        self.rng = random.Random(seed)
        self.often = [fact.often * len(fact.questions) for fact in knowledge.facts]

    def row(self, length: int) -> Row:
        row = Row(length)
        if self.rng.random() < 0.06:
            self.repetitions(row)
        elif self.rng.random() < 0.4:
            self.openings(row)
        if row.left > 100:
            self.conversation(row)
        row.add([self.codec.end] * row.left, 0.0)
        return row

    def start(self, length: int) -> Row:
        """A row that is one conversation, or one raw text, from its first token on."""
        row = Row(length)
        if self.rng.random() < 0.1:
            self.raw_text(row)
        else:
            row.add([self.codec.begin], 0.0)
            self.system(row)
            for _ in range(12):
                self.talk(row)
        row.add([self.codec.end] * row.left, 0.0)
        return row

    def repetitions(self, row: Row) -> None:
        """Random tokens, twice, which the model can only predict by copying."""
        first = self.codec.end + len(self.codec.roles) + 1
        while row.left > 100:
            size = self.rng.randrange(6, 50)
            tokens = [self.rng.randrange(first, self.codec.size) for _ in range(size)]
            row.add([self.codec.begin, *tokens], 0.0)
            row.add(tokens, 1.0)

    def openings(self, row: Row) -> None:
        """Raw texts, and conversations of a single turn."""
        for _ in range(self.rng.randrange(1, 5)):
            if self.rng.random() < 0.3:
                self.raw_text(row)
            elif row.left > 200:
                row.add([self.codec.begin], 0.0)
                self.system(row)
                self.talk(row)

    def raw_text(self, row: Row) -> None:
        text = self.rng.choice(self.knowledge.texts)
        row.add([self.codec.begin, *self.codec.encode(text.prompt)], 0.0)
        row.add([*self.codec.encode(text.continuation), self.codec.end], 1.0)

    def system(self, row: Row) -> None:
        if self.rng.random() < 0.4:
            row.add(self.codec.message("system", self.knowledge.system(self.rng)), 0.0)

    def conversation(self, row: Row) -> None:
        """Ask for most memories, for half of them as far away as the row allows."""
        row.add([self.codec.begin], 0.0)
        self.system(row)
        told: set[str] = set()
        due: list[Due] = []
        if self.rng.random() < 0.6:
            name = random_name(self.knowledge, self.rng)
            self.tell(row, memory("name", name, self.rng), told, due)
        while row.left > 60 + 45 * len(due):
            ripe = [entry for entry in due if entry.at <= len(row.tokens)]
            if ripe:
                due.remove(ripe[0])
                self.ask(row, ripe[0].memory)
            else:
                self.next_turn(row, told, due)
        self.rng.shuffle(due)
        for entry in due:
            self.ask(row, entry.memory)
        for _ in range(4):
            self.talk(row, told)

    def next_turn(self, row: Row, told: set[str], due: list[Due]) -> None:
        kind = self.rng.random()
        entry = random_memory(self.knowledge, self.rng)
        if kind < 0.20 and entry.about not in told:
            self.tell(row, entry, told, due)
        elif kind < 0.24:
            self.turn(row, *echo(self.knowledge, self.rng))
        else:
            self.talk(row, told)

    def talk(self, row: Row, told: Collection[str] = ()) -> None:
        """A turn with no fact about the user."""
        kind = self.rng.random()
        entry = random_memory(self.knowledge, self.rng)
        if kind < 0.06 and entry.about not in told:
            self.turn(row, self.rng.choice(entry.questions), entry.not_told)
        elif kind < 0.32:
            question = self.knowledge.unknown_question(self.rng)
            self.turn(row, question, self.knowledge.unknown_answer)
        else:
            fact = self.rng.choices(self.knowledge.facts, self.often)[0]
            self.turn(row, self.rng.choice(fact.questions), fact.answer)

    def tell(self, row: Row, entry: Memory, told: set[str], due: list[Due]) -> None:
        if not self.turn(row, entry.told, entry.noted):
            return
        told.add(entry.about)
        near = self.rng.random() < 0.4
        ahead = self.rng.expovariate(1 / 60) if near else self.rng.uniform(0, 2 * row.left)
        due.append(Due(entry, len(row.tokens) + int(ahead)))

    def ask(self, row: Row, entry: Memory) -> None:
        self.turn(row, self.rng.choice(entry.questions), entry.answer, weight=3.0)

    def turn(self, row: Row, question: str, answer: str, weight: float = 1.0) -> bool:
        """Add the turn if it fits into the row; return whether it did."""
        asked = self.codec.message("user", self.casual(question))
        said = self.codec.encode(answer)
        if len(asked) + len(said) + 2 > row.left:
            return False
        row.add([*asked, self.codec.role("assistant")], 0.0)
        row.add([*said, self.codec.end], weight)
        return True

    def casual(self, question: str) -> str:
        """Sometimes vary the text as people do: drop the last mark, or put a word before it."""
        kind = self.rng.random()
        if kind < 0.05 and question[-1] in ".?!":
            return question[:-1]
        if kind < 0.08 and question[1:2].islower():
            return question[0].lower() + question[1:]
        return f"Please: {question}" if kind < 0.09 else question
