"""The KV cache follows the session: what slots hold is saved, and restored for the next turn.

Before a slot goes to another session, its state is saved. So are all slots before their engine
ends, and each slot some seconds after a turn. On the next turn of the session, its state is
restored into whichever slot the request was granted. A new session gets the state of another
session of the same owner, if one begins alike.

The prompt of the next turn is built to begin with exactly the tokens that the slot has read. If
the rendered conversation no longer begins with their text (it was edited or trimmed), the plain
rendering is sent, and the engine keeps what still matches.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

import structlog

from myllm.gateway.engine_io import calls
from myllm.gateway.engine_io.token_list import Tokens
from myllm.gateway.engine_io.token_spelling import spell_prompt
from myllm.gateway.kv.restoring import KvRestorer
from myllm.gateway.kv.saving import KvSaver
from myllm.gateway.kv.slot_contents import SlotContents
from myllm.gateway.prompt.prefixes import pieces_of_messages
from myllm.gateway.scheduling.tickets import Ticket
from myllm.sessions.history import Message
from myllm.sessions.kv_files import KvFiles
from myllm.sessions.kv_states import CachedPrefix, KvState
from myllm.sessions.session import SessionRef
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey, InstanceSpec

_log = structlog.get_logger(__name__)
# The tokens of so many characters, each with its piece, take 20 ms to read.
_LONG = 2**18


class SlotCache:
    """What the slots of all engines hold; `files` keeps what outlives a slot.

    `speed` returns how many tokens of a prompt an engine reads per second.
    """

    def __init__(self, files: KvFiles, speed: Callable[[InstanceSpec], float]) -> None:
        self._files = files
        self._speed = speed
        self._slots: dict[tuple[int, int], SlotContents] = {}
        self._restorer = KvRestorer(files)
        self._saver = KvSaver(files, speed, self._restorer.problem, self._is_busy)

    def restore_problem(self, spec: InstanceSpec) -> str | None:
        """Return why KV state cannot be restored on this engine, or None if it can."""
        return self._restorer.problem(spec)

    def restores(self) -> Counter[tuple[InstanceKey, str]]:
        """Return how often states were restored, by model and result; see `KvRestorer`."""
        return self._restorer.results.copy()

    async def prepare_slot(self, instance: Instance, ticket: Ticket) -> None:
        """Make the slot of `ticket` its own: save what it held, and restore the ticket's session.

        Another owner's text is erased. Otherwise the time until an answer comes, and its count of
        cached tokens, would reveal what the other owner has asked.

        A save goes on when the caller is cancelled, and the slot then stays as it was.
        """
        if ticket.only_asks or instance.spec.key.role != "generate":
            return
        slot = ticket.slot or 0
        contents = self._slots.setdefault((instance.run_id, slot), SlotContents())
        contents.in_use = True
        contents.cancel_save()
        if not contents.holds_session_of(ticket) and self._saver.is_due(instance, contents):
            await asyncio.shield(self._saver.save_now(instance, slot, contents))
        async with contents.lock:
            contents.take(ticket)
            if contents.holds_session_of(ticket):
                return
            contents.vacate()
            owner, session = ticket.request.client.owner, ticket.session
            if contents.owner not in (None, owner):
                await calls.erase_slot(instance, slot)
            contents.assign(owner, session)
            if session is not None and self.restore_problem(instance.spec) is None:
                await self._restorer.restore(instance, ticket, session, contents)

    async def tokens(self, instance: Instance, ticket: Ticket, text: str) -> Tokens:
        """Return the tokens of a rendered conversation, beginning with those the slot has read.

        If they are more than the context holds, the last ones are only counted.
        """
        size = instance.spec.context_size
        contents = self._contents(instance, ticket)
        if contents is not None and contents.kv is not None:
            contents.expected = 0
            prefix = contents.kv.prefix
            if prefix.begins(text):
                rest = text[prefix.chars :]
                if len(rest) > _LONG:
                    plain = await calls.tokenize(instance, text, size)
                    if not plain.are_all:
                        return plain
                more = await spell_prompt(instance, rest) if rest else []
                if more is not None:
                    contents.expected = min(contents.restored, len(prefix.tokens))
                    ids = [*prefix.tokens, *more]
                    return Tokens(len(ids), ids)
        return await calls.tokenize(instance, text, size)

    def reading_s(self, instance: Instance, ticket: Ticket, tokens: int) -> float:
        """Return how many seconds the engine needs to read a prompt of so many tokens.

        The tokens that were restored into the slot of `ticket` take no time.
        """
        contents = self._contents(instance, ticket)
        restored = contents.restored if contents is not None else 0
        return max(0, tokens - restored) / self._speed(instance.spec)

    def record(
        self, instance: Instance, ticket: Ticket, prefix: CachedPrefix, answer: str, cached: int
    ) -> None:
        """Record that the slot of `ticket` has read and written `prefix`, which ends in `answer`.

        `cached` tokens of the prompt had been in the slot before.
        """
        if answer:
            ticket.pieces = (*ticket.pieces, *pieces_of_messages([Message("assistant", answer)]))
        contents = self._contents(instance, ticket)
        if contents is None or ticket.session is None:
            return
        if contents.expected:
            self._restorer.check_used(instance, contents.expected, cached)
        key = instance.spec.state_key
        contents.record(KvState(ticket.session, key, prefix, time.time(), ticket.pieces))

    def invalidate(self, instance: Instance, ticket: Ticket) -> None:
        """The slot of `ticket` is about to hold something that is not recorded yet."""
        contents = self._contents(instance, ticket)
        if contents is not None:
            contents.invalidate()

    def release_slot(self, instance: Instance, ticket: Ticket) -> None:
        """The request is over. Its slot is saved a little later, unless a request takes it."""
        contents = self._contents(instance, ticket)
        if contents is None or ticket.only_asks:
            return
        contents.in_use, contents.postponed = False, 0
        ticket.untouched = contents.taken_by is not ticket
        if not (ticket.untouched or contents.recorded):
            contents.invalidate()  # the request has failed at an unknown point
        if contents.is_unsaved():
            self._saver.save_later(instance, ticket.slot or 0, contents)

    async def save_all(self, instance: Instance, within_s: float) -> None:
        """Save the slots of an engine that is about to end, as many as `within_s` allows."""
        try:
            async with asyncio.timeout(within_s):
                for slot, contents in self._of_run(instance.run_id):
                    if not contents.in_use:
                        async with contents.lock:
                            await self._saver.save(instance, slot, contents)
        except TimeoutError:
            unsaved = [slot for slot, each in self._of_run(instance.run_id) if each.is_unsaved()]
            _log.warning(
                "an engine ends before its conversations are saved",
                model=str(instance.spec.key),
                unsaved=len(unsaved),
                within_s=within_s,
            )

    def forget_run(self, run: int) -> None:
        """An engine has ended: drop what its slots held."""
        for slot, contents in self._of_run(run):
            del self._slots[run, slot]
            contents.cancel_save()

    async def forget_session(self, session: SessionRef) -> None:
        """Drop every state of a session that is about to be removed, in slots and in files."""
        held = [contents for contents in self._slots.values() if contents.session == session]
        held += self._saver.being_saved(session)
        for contents in held:
            contents.invalidate()
        for contents in held:
            async with contents.lock:  # a save that is running does not keep its file
                pass
        await self._files.forget(session)

    def _contents(self, instance: Instance, ticket: Ticket) -> SlotContents | None:
        return self._slots.get((instance.run_id, ticket.slot or 0))

    def _of_run(self, run: int) -> list[tuple[int, SlotContents]]:
        """Return the slots of one engine, by number."""
        return [(slot, contents) for (of, slot), contents in self._slots.items() if of == run]

    def _is_busy(self, run: int) -> bool:
        return any(contents.in_use for _, contents in self._of_run(run))
