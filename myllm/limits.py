"""How much one request may ask for: the numbers, in one place.

They are far above what agents send (prompts of 200,000 tokens, 1,000 messages, 200 tools) and low
enough that checking a request never takes long. `docs/limits.md` lists each. Texts have no bound
of their own other than that of the body, the setting `MYLLM_MAX_BODY_MB`.
"""

from __future__ import annotations

from typing import Final

VALUES: Final = 300_000
"""Numbers, texts, lists and objects in a JSON body. They are counted before the body is parsed,
because the parser keeps Python's lock, and all other requests waiting, until it has ended."""

CONTAINERS: Final = 60_000
"""Lists and objects among them: parsing and checking one takes as long as ten numbers."""

KEYS: Final = 100_000
"""Fields of all objects together: each costs as much as three numbers."""

NESTING: Final = 128
"""Lists and objects inside each other. JSON encoders give up at 254, including the levels that our
own envelopes add."""

MESSAGES: Final = 10_000
"""Messages, or items of an input, in a request or an imported session."""

PARTS: Final = 20_000
"""Parts of the content, pictures and tool calls of all messages of a request together."""

TOOLS: Final = 1_000
"""Tools that a request offers."""

ANSWERS: Final = 256
"""Prompts times `n`: each is a request to the engine, and a queue holds as many by default."""

INPUTS: Final = 2_048
"""Texts to embed, or documents to score, in a request."""

TOKENS: Final = 262_144
"""Tokens in a prompt or input that is given as tokens."""

STOPS: Final = 128
"""Texts that end an answer."""

STOP_CHARS: Final = 1_024
"""Characters of each of them."""

BIASES: Final = 4_096
"""Entries of `logit_bias`."""

LABELS: Final = 64
"""Pairs of `metadata`, or names in `response_fields`."""

OPTIONS: Final = 64
"""Fields of an object that accepts known fields only."""

NAME_CHARS: Final = 1_024
"""Characters of a name, an id, a title, a cursor."""

SEARCH_CHARS: Final = 512
"""Characters of a text to search for."""

LOG_LINES: Final = 10_000
"""Last lines of each log of a model's engines, in an answer."""

WHOLE: Final = 2**31 - 1
"""Largest absolute value of a count: the range of the engine's integers."""

ERROR_CHARS: Final = 2_000
"""Characters of an error's text; a longer one, which repeats the input, is cut."""
