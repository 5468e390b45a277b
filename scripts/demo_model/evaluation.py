"""An exam of the trained model with greedy decoding, before it is written to a file."""

from __future__ import annotations

import random

import torch

from .knowledge import Knowledge
from .memories import memory
from .network import Network
from .tokens import Codec

# Of 100. The final model must reach 95.
ENOUGH_NAMES = 97


class Examiner:
    def __init__(self, network: Network, codec: Codec, knowledge: Knowledge) -> None:
        self.network = network
        self.codec = codec
        self.knowledge = knowledge
        self.rng = random.Random(5)

    def report(self) -> bool:
        """Print the marks; return whether everything that a user would notice is right."""
        wrong = self.wrong_facts()
        print(f"trained questions answered wrongly: {len(wrong)}")
        for question in wrong[:20]:
            print(f"  {question}")
        recalled = {between: self.recalled(between) for between in (0, 500, 1500)}
        for between, right in recalled.items():
            print(f"held-out names recalled after {between} tokens: {right}")
        print(f"held-out questions answered honestly: {self.honest()}")
        return not wrong and min(recalled.values()) >= ENOUGH_NAMES

    def wrong_facts(self) -> list[str]:
        asked = [(question, fact) for fact in self.knowledge.facts for question in fact.questions]
        wrong = []
        for question, fact in asked:
            prompt = [self.codec.begin, *self.codec.message("user", question)]
            if not self.answers(prompt, fact.answer):
                wrong.append(question)
        for text in self.knowledge.texts:
            prompt = [self.codec.begin, *self.codec.encode(text.prompt)]
            if not self.follows(prompt, text.continuation):
                wrong.append(f"(text) {text.prompt}")
        return wrong

    def recalled(self, between: int) -> int:
        right = 0
        for name in self.knowledge.held_out_names:
            entry = memory("name", name, self.rng)
            prompt = [self.codec.begin]
            prompt += self.turn(entry.told, entry.noted)
            prompt += self.talk(between)
            prompt += self.codec.message("user", self.rng.choice(entry.questions))
            right += self.answers(prompt, entry.answer)
        return right

    def honest(self) -> int:
        right = 0
        for question in self.knowledge.held_out_questions:
            prompt = [self.codec.begin]
            if self.rng.random() < 0.5:
                prompt += self.codec.message("system", self.knowledge.system(self.rng))
            prompt += self.codec.message("user", question)
            right += self.answers(prompt, self.knowledge.unknown_answer)
        return right

    def talk(self, length: int) -> list[int]:
        tokens: list[int] = []
        while len(tokens) < length:
            fact = self.rng.choice(self.knowledge.facts)
            if len(self.codec.encode(fact.answer)) < 80:
                tokens += self.turn(self.rng.choice(fact.questions), fact.answer)
        return tokens

    def turn(self, question: str, answer: str) -> list[int]:
        return self.codec.message("user", question) + self.codec.message("assistant", answer)

    def answers(self, prompt: list[int], answer: str) -> bool:
        return self.follows([*prompt, self.codec.role("assistant")], answer)

    @torch.no_grad()
    def follows(self, prompt: list[int], text: str) -> bool:
        """Whether greedy decoding of the prompt writes this text, and then ends."""
        wanted = [*self.codec.encode(text), self.codec.end]
        states = self.network.states(torch.tensor([prompt + wanted[:-1]]))
        logits = states[0, len(prompt) - 1 :] @ self.network.embedding.weight.T
        return bool((logits.argmax(-1) == torch.tensor(wanted)).all())
