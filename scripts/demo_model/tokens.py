"""The tokenizer: byte-level BPE as in GPT-2, and the marks of a chat."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

BEGIN, END = "<|begin|>", "<|end|>"
ROLES = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
CONTROL = [BEGIN, END, *ROLES.values()]
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% set role = message['role'] if message['role'] in ['system', 'assistant'] else 'user' %}"
    "{{ '<|' + role + '|>' + message['content'] | trim + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train(texts: list[str], size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=CONTROL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    assert tokenizer.get_vocab_size() == size, "too little text for a vocabulary of this size"
    return tokenizer


class Codec:
    """Text to ids and back, with the marks of a chat."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.size: int = tokenizer.get_vocab_size()
        self.begin = self.id(BEGIN)
        self.end = self.id(END)
        self.roles = {role: self.id(mark) for role, mark in ROLES.items()}
        self.seen: dict[str, list[int]] = {}

    def id(self, mark: str) -> int:
        token: int | None = self.tokenizer.token_to_id(mark)
        assert token is not None, mark
        return token

    def encode(self, text: str) -> list[int]:
        if text not in self.seen:
            ids: list[int] = self.tokenizer.encode(text).ids
            self.seen[text] = ids
        return self.seen[text]

    def decode(self, ids: list[int]) -> str:
        text: str = self.tokenizer.decode(ids)
        return text

    def role(self, role: str) -> int:
        return self.roles[role]

    def message(self, role: str, content: str) -> list[int]:
        return [self.role(role), *self.encode(content), self.end]
