"""What a request asks of an engine, for checking it and for recognizing it again."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any, Final

import orjson

from myllm.gateway.constraints import checks
from myllm.gateway.constraints.enforced import enforced
from myllm.gateway.conversation.ignored import Ignored
from myllm.gateway.key_limits import estimates
from myllm.json_output import dump_in_steps, is_large
from myllm.threads import in_thread_if

# A request without a seed gets a random one.
_RANDOM_FIELD: Final = "seed"


class Demand:
    """What a client asks of an engine. All tickets of one request may share it.

    `body` is the body of a POST to the engine's `path`, in the engine's names. Nothing changes it
    later: what a certain engine needs goes into a copy. It asks for so many `answers`. If it is
    part of a larger request, `whole` is the body of that.
    """

    def __init__(
        self,
        path: str,
        body: Mapping[str, Any],
        answers: int = 1,
        whole: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = path
        self.is_reserved = False
        """Whether its tokens have been reserved, once for all its tickets."""
        self._body = body
        self._answers = answers
        self._whole = body if whole is None else whole
        self._is_checked = False
        self._is_large = False
        self._enforced: dict[str, Any] = {}
        self._digest: bytes | None = None

    async def check(self, ignored: Ignored) -> None:
        """Raise InvalidRequest for a body that would keep an engine busy, or asks for a form of the
        answer that it cannot enforce. Checks only once. `ignored` collects what of the parameters
        of tools is not enforced."""
        if not self._is_checked:
            await checks.check(self._body)
            self._enforced = await enforced(self._body, ignored)
            if self._enforced:
                await checks.check(self._enforced)
            self._is_large = is_large(self._body)
            if self._is_large:
                await asyncio.to_thread(self.digest)  # which may be asked for at any time
            self._is_checked = True

    def enforced(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return `body`, which is for an engine, with schemas that engines enforce."""
        changed = {name: self._enforced[name] for name in self._enforced if name in body}
        return body | changed if changed else body

    async def tokens(self) -> tuple[int, int]:
        """Estimate the tokens of the prompts of the whole request, and return the most that its
        answers may have. It must have been checked."""
        body = self._whole
        large = self._is_large if body is self._body else is_large(body)
        prompt = await in_thread_if(large, estimates.prompt_tokens, body)
        return prompt, self._answers * estimates.answer_tokens(body)

    def digest(self) -> bytes:
        """Return a digest of everything but the seed. Computed once; if that takes long, `check`
        has done so."""
        if self._digest is None:
            body = {name: value for name, value in self._body.items() if name != _RANDOM_FIELD}
            content = dump_in_steps([self.path, body], repr, orjson.OPT_SORT_KEYS)
            self._digest = hashlib.blake2b(content, digest_size=16).digest()
        return self._digest
