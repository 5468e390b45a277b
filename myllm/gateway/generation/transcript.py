"""What of one answer has been sent, and which tokens stand behind it.

Fed with the events of the engine's `/completion` stream, of one engine after another. What
these events tell was found out on the pinned engine:

  - An event carries its token's id and the count of tokens so far. A token that ends inside a
    character has no event: the count then rises by more than one, and the next event has the
    text of all of them, but the last one's id only.
  - An event without text holds its token back, because the text may begin a stop string. The
    next event with text has theirs too. So text that was sent never begins a stop string: an
    engine that goes on behind it finds the same stop strings as one that was never disturbed.
  - The token that ends an answer has an event, too: without text, or with the text that was
    held back before it. That the text is not its own only its spelling shows (`doubtful`).
  - The event in which a stop string was found carries timings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from myllm.gateway.generation.events import Finished, Usage
from myllm.gateway.generation.replay import Diverged, skip_sent


@dataclass(frozen=True)
class Gap:
    """`count` tokens of which only the text is known."""

    text: str
    count: int


class Transcript:
    """One answer of at most `max_tokens` tokens."""

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._sent: list[str] = []
        self._tokens: list[int | Gap] = []  # behind the text that this run has made whole
        self._produced = 0  # how many those are
        self._held: list[int] = []  # behind these, with no text yet
        self._before = 0  # tokens that the engine was given, and does not count
        self._due = ""  # what a repeated run must say first
        self._doubtful: int | None = None
        self._prompt_tokens = 0
        self._cached_tokens: int | None = None
        self._end: tuple[Literal["stop", "length"], int] | None = None
        self._stop_text: str | None = None

    # What happens

    def take(self, event: dict[str, Any]) -> str:
        """Note an event; returns the text to send for it, which may be empty.

        Raises Diverged when a repeated run differs from what has been sent.
        """
        self.prompt_is(event["tokens_evaluated"] - self._before)
        if event["stop"]:
            self._finish(event)
            return ""
        if "prompt_progress" in event:  # its `tokens` are none
            if self._cached_tokens is None:
                self._cached_tokens = event["prompt_progress"]["cache"]
            return ""
        return self._send(self._note(event))

    def go_on(self) -> None:
        """A new engine goes on behind `ids`: it counts from there, and knows of nothing held."""
        self._before = self._produced
        self._held.clear()

    def adopt(self, text: str, ids: list[int]) -> None:
        """`text` was sent already, by somebody who knows no more of its tokens than `ids`."""
        self._sent, self._tokens, self._produced = [text], [*ids], len(ids)

    def prompt_is(self, tokens: int) -> None:
        """So many tokens are in the prompt; the first to tell is right."""
        self._prompt_tokens = self._prompt_tokens or tokens

    def start_over(self) -> None:
        """A new engine makes the whole answer again; it must begin with what has been sent."""
        self._before = self._produced = 0
        self._tokens.clear()
        self._held.clear()
        self._doubtful = None
        self._due = self.text

    def settle(self, spelling: bytes) -> None:
        """`doubtful` spells this: when the text does not end so, that token ended the answer.

        It is then left out, and the next engine makes it again.
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
        """There is no room for another token."""
        self._end = ("length", self._produced)

    # What can be asked

    @property
    def produced(self) -> int:
        """Tokens behind which a new engine can go on."""
        return self._produced

    @property
    def remaining(self) -> int:
        """Tokens that may still come."""
        return self._max_tokens - self._produced

    @property
    def text(self) -> str:
        """What has been sent."""
        return "".join(self._sent)

    @property
    def cached_tokens(self) -> int:
        """How many tokens of the prompt the first engine knew already."""
        return self._cached_tokens or 0

    @property
    def doubtful(self) -> int | None:
        """A token that may have ended the answer; tell `settle` what it spells."""
        return self._doubtful

    def is_complete(self) -> bool:
        """Whether nothing is missing, so that no engine needs to be asked any more."""
        return self._end is not None or (self.remaining <= 0 and self._doubtful is None)

    def is_due(self) -> bool:
        """Whether a repeated run has still to say what was sent."""
        return bool(self._due)

    def is_spelled(self) -> bool:
        """Whether `ids` can tell the tokens of all that was sent, without being told any."""
        return self._doubtful is None and not self._due and not self.gaps()

    def has_begun(self) -> bool:
        """Whether an engine has told how much of the prompt it knew already."""
        return self._cached_tokens is not None

    def gaps(self) -> set[str]:
        """The texts whose tokens `ids` must be told."""
        return {part.text for part in self._tokens if isinstance(part, Gap)}

    def ids(self, spelled: Mapping[str, list[int]]) -> list[int]:
        """The tokens behind the text that was sent, where `spelled` has those of the gaps.

        Where a gap had another number of tokens than are told, they are not those that were
        produced, but spell the same text: from there the answer goes on from its text.
        """
        ids: list[int] = []
        for part in self._tokens:
            ids += spelled[part.text] if isinstance(part, Gap) else (part,)
        return ids

    def finished(self) -> Finished:
        """The end of the answer, as if one engine had made it; only when it is complete."""
        reason, completion_tokens = self._end or ("length", self._produced)
        usage = Usage(self._prompt_tokens, completion_tokens, self.cached_tokens)
        return Finished(self.text, usage, reason, stop_text=self._stop_text)

    # How

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
        """Leave out what is due for the second time."""
        if self._due:
            text, self._due = skip_sent(text, self._due)
        if text:
            self._sent.append(text)
        return text

    def _finish(self, event: dict[str, Any]) -> None:
        if self._due:
            raise Diverged
        if self._cached_tokens is None:
            self._cached_tokens = max(0, event.get("timings", {}).get("cache_n", 0))
        self._stop_text = event.get("stopping_word") or None
        reason: Literal["stop", "length"] = "length" if event["stop_type"] == "limit" else "stop"
        self._end = (reason, self._before + event["tokens_predicted"])
