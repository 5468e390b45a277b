"""Restore the KV state of a session into a slot, or that of a session that begins alike."""

from __future__ import annotations

from collections import Counter

import structlog

from myllm.errors import InvalidRequest, MyLLMError
from myllm.gateway.engine_io import calls
from myllm.gateway.kv.slot_contents import SlotContents
from myllm.gateway.prompt.prefixes import common_chars
from myllm.gateway.scheduling.tickets import Ticket
from myllm.sessions.kv_files import KvFiles
from myllm.sessions.kv_states import KvState, file_name
from myllm.sessions.session import SessionRef
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey, InstanceSpec

_log = structlog.get_logger(__name__)
# An engine reads a shorter common beginning faster than it restores another session's state.
_ALIKE_CHARS = 512
# Stop restoring after this many consecutive ignored restores.
_MAX_IGNORED = 2


class KvRestorer:
    """Restores slots from `files`, and watches whether engines use what was restored.

    `results` count by model and result: `restored`, `shared` (the state of another session that
    begins alike), `missing` (none is kept of a session that goes on), and `failed`. A restored
    state that the engine then did not use counts once more, as `unused`.
    """

    def __init__(self, files: KvFiles) -> None:
        self.results: Counter[tuple[InstanceKey, str]] = Counter()
        self._files = files
        self._ignored: dict[str, int] = {}

    def problem(self, spec: InstanceSpec) -> str | None:
        """Return why KV state cannot be restored on this engine, or None if it can."""
        if spec.key.role != "generate":
            return "embedding and reranking engines hold no conversations"
        if not self._files.keeps:
            return "switched off by MYLLM_KV_CACHE_MB=0"
        if self._ignored.get(spec.state_key, 0) >= _MAX_IGNORED:
            return "the engine did not use the states that were read back"
        return spec.model.header.state_problem

    async def restore(
        self, instance: Instance, ticket: Ticket, session: SessionRef, contents: SlotContents
    ) -> None:
        """Restore what there is for `session` into the slot of `ticket`; a failure is logged.

        `contents` change only if it is the session's own state. Another session's state just
        saves the engine from reading the common beginning.
        """
        try:
            name = file_name(session, instance.spec.state_key)
            kv = None if ticket.begins else await self._files.checked(name)
            if kv is None and (alike := await self._alike(instance, ticket, session.owner)):
                kv = await self._files.checked(alike)
            if kv is not None:
                await self._restore_from(kv, instance, ticket, contents)
            elif not ticket.begins:
                self._count(instance, "missing")
        except MyLLMError as failure:
            self._count(instance, "failed")
            _log.warning("state of a conversation not restored", cause=failure.detail)

    async def _restore_from(
        self, kv: KvState, instance: Instance, ticket: Ticket, contents: SlotContents
    ) -> None:
        try:
            tokens = await calls.restore_slot(instance, ticket.slot or 0, kv.file_name)
        except InvalidRequest:  # the engine works, but cannot use this file
            await self._files.drop(kv.file_name)
            raise
        own = kv.session == ticket.session
        self._count(instance, "restored" if own else "shared")
        _log.info("state of a conversation restored", tokens=tokens, own=own)
        if own:
            contents.mark_restored(kv, tokens)

    def _count(self, instance: Instance, result: str) -> None:
        self.results[instance.spec.key, result] += 1

    async def _alike(self, instance: Instance, ticket: Ticket, owner: str) -> str | None:
        """Return the file of the owner's session whose beginning has most in common with this."""
        if common_chars(ticket.pieces, ticket.pieces) < _ALIKE_CHARS:
            return None
        found = await self._files.alike(owner, instance.spec.state_key)
        lengths = {name: common_chars(pieces, ticket.pieces) for name, pieces in found}
        best = max(lengths, key=lambda name: lengths[name], default="")
        return best if lengths.get(best, 0) >= _ALIKE_CHARS else None

    def check_used(self, instance: Instance, expected: int, cached: int) -> None:
        """Count the engine's ignored restores: `cached` tokens were used of `expected` ones.

        Some engines restore a state, report success and then read the whole prompt again.
        """
        key = instance.spec.state_key
        if cached >= expected // 2:
            self._ignored.pop(key, None)
            return
        self._ignored[key] = self._ignored.get(key, 0) + 1
        self._count(instance, "unused")
        _log.warning("restored state not used", model=str(instance.spec.key), cached=cached)
