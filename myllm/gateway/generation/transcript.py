"""Tracks which text of one answer has been sent, and which tokens produced it.

A transcript takes the events of the engine's `/completion` stream, of one engine after another. How
the pinned engine behaves was found by experiment:

  - An event has the id of its token and the count of tokens so far. A token that ends inside a
    character has no event: the count then rises by more than one, and the next event has the text
    of all of them, but only the last one's id.
  - An event without text holds its token back, because the text may begin a stop string. The next
    event with text has that text, too. So text that was sent never begins a stop string: an engine
    that continues behind it finds the same stop strings as one that was never disturbed.
  - The token that ends an answer has an event, too: without text, or with the text that was held
    back before it. Only detokenizing the token reveals that its text belongs to earlier tokens
    (`doubtful`).
  - The event in which a stop string was found has timings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from myllm.gateway.generation.events import Finished
from myllm.gateway.generation.replay import Diverged, skip_sent
from myllm.gateway.usage import Usage


@dataclass(frozen=True)
class Gap:
    """`count` tokens of which only the text is known, not the ids."""

    text: str
    count: int


class Transcript:
    """One answer of at most `max_tokens` tokens."""

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._sent: list[str] = []
        self._tokens: list[int | Gap] = []  # those whose text is whole
        self._produced = 0  # the number of those
        self._held: list[int] = []  # the tokens after those, with no text yet
        self._before = 0  # tokens of earlier engines, which this one does not count
        self._unreplayed = ""  # what a replay has yet to repeat of the text that was sent
        self._doubtful: int | None = None
        self._prompt_tokens = 0
        self._cached_tokens: int | None = None
        self._end: tuple[Literal["stop", "length"], int] | None = None
        self._stop_text: str | None = None

    def take(self, event: dict[str, Any]) -> str:
        """Note an event and return the text to send for it, which may be empty.

        Raises Diverged if a replay differs from what has been sent.
        """
        self.set_prompt_tokens(event["tokens_evaluated"] - self._before)
        if event["stop"]:
            self._finish(event)
            return ""
        if "prompt_progress" in event:  # its `tokens` are not generated ones
            if self._cached_tokens is None:
                self._cached_tokens = event["prompt_progress"]["cache"]
            return ""
        return self._send(self._note(event))

    def begin_continuation(self) -> None:
        """Expect an engine that continues behind `ids`: it counts from there and holds nothing."""
        self._before = self._produced
        self._held.clear()

    def adopt(self, text: str, ids: list[int]) -> None:
        """Begin with `text`, which was sent already and which the tokens `ids` spell."""
        self._sent, self._tokens, self._produced = [text], [*ids], len(ids)

    def set_prompt_tokens(self, tokens: int) -> None:
        """Note the length of the prompt; only the first call counts."""
        self._prompt_tokens = self._prompt_tokens or tokens

    def begin_replay(self) -> None:
        """Expect an engine that generates the whole answer again, with the same beginning."""
        self._before = self._produced = 0
        self._tokens.clear()
        self._held.clear()
        self._doubtful = None
        self._unreplayed = self.text

    def settle(self, spelling: bytes) -> None:
        """Decide what `doubtful`, which spells `spelling`, was.

        If the text does not end with it, that token ended the answer. It is then left out, and the
        next engine produces it again.
        """
        self._doubtful = None
        last = self._tokens[-1]
        text = last.text if isinstance(last, Gap) else self._sent[-1]
        if text.encode().endswith(spelling):
            return
        self._produced -= 1
        self._tokens.pop()
        if isinstance(last, Gap):
            self._tokens.append(Gap(last.text, last.count - 1))

    def end_by_length(self) -> None:
        """End the answer because the context is full."""
        self._end = ("length", self._produced)

    @property
    def produced(self) -> int:
        """The number of tokens behind which another engine can continue."""
        return self._produced

    @property
    def remaining(self) -> int:
        """The number of tokens that may still come."""
        return self._max_tokens - self._produced

    @property
    def text(self) -> str:
        """The text that has been sent."""
        return "".join(self._sent)

    @property
    def cached_tokens(self) -> int:
        """How many tokens of the prompt the first engine had cached."""
        return self._cached_tokens or 0

    @property
    def usage(self) -> Usage:
        """The token counts so far."""
        tokens = self._end[1] if self._end else self._produced
        return Usage(self._prompt_tokens, tokens, self.cached_tokens)

    @property
    def doubtful(self) -> int | None:
        """A token that may have ended the answer; call `settle` with its spelling."""
        return self._doubtful

    def is_complete(self) -> bool:
        """Return whether nothing is missing, so that no engine is needed any more."""
        return self._end is not None or (self.remaining <= 0 and self._doubtful is None)

    def is_replaying(self) -> bool:
        """Return whether a replay has yet to repeat some of the text that was sent."""
        return bool(self._unreplayed)

    def is_spelled(self) -> bool:
        """Return whether the tokens of all text that was sent are known."""
        return self._doubtful is None and not self._unreplayed and not self.gaps()

    def has_begun(self) -> bool:
        """Return whether an engine has begun to read the prompt."""
        return self._cached_tokens is not None

    def gaps(self) -> set[str]:
        """Return the texts whose tokens are not known."""
        return {part.text for part in self._tokens if isinstance(part, Gap)}

    def ids(self, spelled: Mapping[str, list[int]]) -> list[int]:
        """Return the tokens of the text that was sent; `spelled` has those of the gaps.

        The tokens of a gap may not be those that were produced, but they spell the same text.
        """
        ids: list[int] = []
        for part in self._tokens:
            ids += spelled[part.text] if isinstance(part, Gap) else (part,)
        return ids

    def finished(self) -> Finished:
        """Return the end of a complete answer, as if one engine had generated it all."""
        reason = self._end[0] if self._end else "length"
        return Finished(self.text, self.usage, reason, stop_text=self._stop_text)

    def _note(self, event: dict[str, Any]) -> str:
        text: str = event["content"]
        ids = [*self._held, *event["tokens"]]
        total = self._before + event["tokens_predicted"]
        if "timings" in event:
            self._end = ("stop", total)
        if not text:
            self._held = ids
            return text
        count = total - self._produced
        self._tokens += ids if len(ids) == count else [Gap(text, count)]
        self._produced = total
        self._doubtful = ids[-1] if self._held else None
        self._held = []
        return text

    def _send(self, text: str) -> str:
        """Note text as sent, and return it without what a replay repeats."""
        if self._unreplayed:
            text, self._unreplayed = skip_sent(text, self._unreplayed)
        if text:
            self._sent.append(text)
        return text

    def _finish(self, event: dict[str, Any]) -> None:
        if self._unreplayed:
            raise Diverged
        if self._cached_tokens is None:
            self._cached_tokens = max(0, event.get("timings", {}).get("cache_n", 0))
        self._stop_text = event.get("stopping_word") or None
        reason: Literal["stop", "length"] = "length" if event["stop_type"] == "limit" else "stop"
        self._end = (reason, self._before + event["tokens_predicted"])
