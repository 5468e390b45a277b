"""The KV cache follows the conversation: what each slot remembers, saved and brought back.

A slot that a session must leave is saved before anybody else gets it, and so are all slots
before their engine ends, and some seconds after a turn. On the session's next turn its state
comes back into whatever slot the request has got; a new session gets the state of a conversation
of the same owner that begins alike, if there is one.

The prompt of the next turn is built to begin with exactly the tokens that the slot has read.
When the rendered conversation is no extension of what they spell (it was edited or trimmed), the
plain rendering is sent, and the engine keeps what still matches.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from myllm.errors import InvalidRequest, MyLLMError
from myllm.gateway.engine_io import calls
from myllm.gateway.engine_io.token_spelling import spell_prompt
from myllm.gateway.kv.slot_contents import SlotContents
from myllm.gateway.prompt.prefixes import common_chars, pieces_of_messages
from myllm.gateway.scheduling.tickets import Ticket
from myllm.loops import in_background
from myllm.sessions.history import Message
from myllm.sessions.kv_files import KvFiles
from myllm.sessions.kv_states import CachedPrefix, KvState, file_name
from myllm.sessions.session import SessionRef
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceSpec

_log = structlog.get_logger(__name__)
_SAVE_AFTER_S = 3.0
# An engine that saves a slot answers nobody meanwhile, so it is put off while others are answered,
# so many times at most.
_MOST_PUT_OFF = 10
# What is read again in less time than this is not worth a file.
_WORTH_S = 0.008
# A shorter common beginning is read faster than somebody else's state.
_ALIKE_CHARS = 512
# So often in a row must an engine ignore a state that was read back, before none is any more.
_MOST_IGNORED = 2


class SlotCache:
    """What the slots of all engines hold; `files` has what outlives a slot.

    `speed` tells how many tokens of a prompt an engine reads per second.
    """

    def __init__(
        self,
        files: KvFiles,
        speed: Callable[[InstanceSpec], float],
    ) -> None:
        self._files = files
        self._speed = speed
        self._slots: dict[tuple[int, int], SlotContents] = {}
        self._ignored: dict[str, int] = {}
        self._saving: set[asyncio.Task[None]] = set()
        self._being_saved: list[SlotContents] = []  # also of engines that have ended meanwhile

    def restore_problem(self, spec: InstanceSpec) -> str | None:
        """Why this engine's conversations are read anew when they have left their slot; None:
        they are not."""
        if spec.key.role != "generate":
            return "embeddings and scores are no conversations"
        if not self._files.keeps:
            return "switched off by MYLLM_KV_CACHE_MB=0"
        if self._ignored.get(spec.state_key, 0) >= _MOST_IGNORED:
            return "the engine did not use the states that were read back"
        return spec.model.header.state_problem

    async def prepare_slot(self, instance: Instance, ticket: Ticket) -> None:
        """Make the slot of `ticket` its own: save who was there, bring back what it had. Nothing
        of another owner's stays in it, or how soon and from how many cached tokens an answer
        comes would tell what the other one has asked.

        The save goes on when the caller is cancelled, and the slot is then left as it was.
        """
        if ticket.only_asks or instance.spec.key.role != "generate":
            return
        contents, slot = self._of(instance, ticket), ticket.slot or 0
        contents.in_use = True
        if contents.timer is not None:
            contents.timer.cancel()
        if not contents.belongs_to(ticket):
            await asyncio.shield(self._save_now(instance, slot, contents))
        async with contents.lock:
            goes_on = contents.belongs_to(ticket)
            contents.taken_by, contents.noted, contents.expected = ticket, False, 0
            if goes_on:
                return
            contents.session = ticket.session
            contents.state, contents.saved, contents.restored = None, False, 0
            owner = ticket.request.client.owner
            if contents.owner not in (None, owner):
                await calls.erase_slot(instance, slot)
            contents.owner = owner
            if ticket.session is not None and self.restore_problem(instance.spec) is None:
                await self._restore(instance, ticket, contents)

    async def tokens(self, instance: Instance, ticket: Ticket, text: str) -> list[int]:
        """The tokens of a rendered conversation, beginning with those that its slot has read."""
        contents = self._slots.get((instance.run_id, ticket.slot or 0))
        if contents is not None and contents.state is not None:
            contents.expected = 0
            remembered = contents.state.remembered
            if remembered.begins(text):
                rest = text[remembered.chars :]
                more = await spell_prompt(instance, rest) if rest else []
                if more is not None:
                    contents.expected = min(contents.restored, len(remembered.tokens))
                    return [*remembered.tokens, *more]
        return await calls.tokenize(instance, text)

    def reading_s(self, instance: Instance, ticket: Ticket, tokens: int) -> float:
        """How long an engine takes to read a prompt of so many tokens, without those that were
        read back into the slot of `ticket`."""
        contents = self._slots.get((instance.run_id, ticket.slot or 0))
        restored = contents.restored if contents is not None else 0
        return max(0, tokens - restored) / self._speed(instance.spec)

    def record(
        self, instance: Instance, ticket: Ticket, remembered: CachedPrefix, answer: str, cached: int
    ) -> None:
        """The slot of `ticket` has read and written so much, the last of it being `answer`;
        `cached` tokens of the prompt had been in it."""
        if answer:
            ticket.pieces = (*ticket.pieces, *pieces_of_messages([Message("assistant", answer)]))
        contents = self._slots.get((instance.run_id, ticket.slot or 0))
        if contents is None or ticket.session is None:
            return
        if contents.expected:
            self._verify(instance, contents.expected, cached)
        engine = instance.spec.state_key
        contents.state = KvState(ticket.session, engine, remembered, time.time(), ticket.pieces)
        contents.saved, contents.noted, contents.restored, contents.expected = False, True, 0, 0

    def invalidate(self, instance: Instance, ticket: Ticket) -> None:
        """The slot of ticket is going to hold something that nobody has told."""
        contents = self._slots.get((instance.run_id, ticket.slot or 0))
        if contents is not None:
            contents.state, contents.restored, contents.expected = None, 0, 0

    def release_slot(self, instance: Instance, ticket: Ticket) -> None:
        """The request is over; its slot is saved a little later, if nobody comes back."""
        contents = self._slots.get((instance.run_id, ticket.slot or 0))
        if contents is None or ticket.only_asks:
            return
        contents.in_use, contents.put_off = False, 0
        ticket.untouched = contents.taken_by is not ticket
        if not (ticket.untouched or contents.noted):
            contents.state = None  # the request has failed, and nobody knows how far it had come
        if contents.is_unsaved():
            self._save_later(instance, ticket.slot or 0, contents)

    async def save_all(self, instance: Instance, within_s: float) -> None:
        """Save every slot of an engine that is to end, as far as the time suffices."""
        try:
            async with asyncio.timeout(within_s):
                for slot, contents in self._of_run(instance.run_id):
                    if not contents.in_use:
                        async with contents.lock:
                            await self._save(instance, slot, contents)
        except TimeoutError:
            unsaved = [
                contents for _, contents in self._of_run(instance.run_id) if contents.is_unsaved()
            ]
            _log.warning(
                "an engine ends before its conversations are saved",
                model=str(instance.spec.key),
                unsaved=len(unsaved),
                within_s=within_s,
            )

    def forget_run(self, run: int) -> None:
        """An engine has ended."""
        for slot, contents in self._of_run(run):
            del self._slots[run, slot]
            if contents.timer is not None:
                contents.timer.cancel()

    async def forget_session(self, session: SessionRef) -> None:
        """A session is to be removed: neither its files nor its slots may bring it back."""
        for contents in [*self._slots.values(), *self._being_saved]:
            if contents.session == session:
                contents.state = None
                async with contents.lock:  # what is just being saved is not kept
                    pass
        await self._files.forget(session)

    def _of(self, instance: Instance, ticket: Ticket) -> SlotContents:
        return self._slots.setdefault((instance.run_id, ticket.slot or 0), SlotContents())

    def _of_run(self, run: int) -> list[tuple[int, SlotContents]]:
        """The slots of one engine."""
        return [
            (slot, contents) for (of_run, slot), contents in self._slots.items() if of_run == run
        ]

    def _save_later(self, instance: Instance, slot: int, contents: SlotContents) -> None:
        if contents.timer is not None:
            contents.timer.cancel()
        later = asyncio.get_running_loop().call_later
        contents.timer = later(_SAVE_AFTER_S, self._save_idle, instance, slot, contents)

    def _save_idle(self, instance: Instance, slot: int, contents: SlotContents) -> None:
        others = any(other.in_use for _, other in self._of_run(instance.run_id))
        if others and contents.put_off < _MOST_PUT_OFF:
            contents.put_off += 1
            self._save_later(instance, slot, contents)
            return

        if not contents.in_use:
            self._save_now(instance, slot, contents)

    def _save_now(
        self, instance: Instance, slot: int, contents: SlotContents
    ) -> asyncio.Task[None]:
        """Save a slot whatever becomes of the caller, unless a request takes the slot before the
        save begins. One that comes later waits for the lock."""
        taken_by = contents.taken_by

        async def save() -> None:
            async with contents.lock:
                if contents.taken_by is taken_by:
                    await self._save(instance, slot, contents)

        task = in_background("saving a conversation's state", save())
        self._saving.add(task)
        task.add_done_callback(self._saving.discard)
        return task

    async def _save(self, instance: Instance, slot: int, contents: SlotContents) -> None:
        """Failing to is logged: then the history is read anew."""
        state = contents.state
        if (
            state is None
            or contents.saved
            or instance.is_over()
            or not self._is_worth(instance, state)
        ):
            return
        aside = None
        self._being_saved.append(contents)
        try:
            aside = await self._files.new_aside()
            tokens = await calls.save_slot(instance, slot, aside)
            contents.saved = True
            if contents.state is state and self._goes_on_from(instance, state, tokens):
                await self._files.keep(aside, state)
        except (MyLLMError, OSError) as failure:
            contents.saved = False
            _log.warning("state of a conversation not saved", cause=str(failure))
        finally:
            self._being_saved.remove(contents)
            if aside is not None:
                self._files.discard(aside)

    def _goes_on_from(self, instance: Instance, state: KvState, tokens: int) -> bool:
        """Whether the next prompt can follow on `tokens` that a slot has read.

        A running state cannot go back behind what was read beyond the answer: a stop string, or
        tokens that came when the client had left.
        """
        exact = tokens <= len(state.remembered.tokens)
        return exact or instance.spec.model.header.cache_kind != "recurrent"

    def _is_worth(self, instance: Instance, state: KvState) -> bool:
        if self.restore_problem(instance.spec) is not None:
            return False
        return len(state.remembered.tokens) / self._speed(instance.spec) > _WORTH_S

    async def _restore(self, instance: Instance, ticket: Ticket, contents: SlotContents) -> None:
        session = ticket.session
        assert session is not None
        try:
            name = file_name(session, instance.spec.state_key)
            state = None if ticket.begins else await self._files.checked(name)
            if state is None and (alike := await self._alike(instance, ticket, session.owner)):
                state = await self._files.checked(alike)
            if state is not None:
                await self._read_back(instance, ticket, contents, state)
        except MyLLMError as failure:
            _log.warning("state of a conversation not restored", cause=failure.detail)

    async def _read_back(
        self, instance: Instance, ticket: Ticket, contents: SlotContents, state: KvState
    ) -> None:
        try:
            tokens = await calls.restore_slot(instance, ticket.slot or 0, state.file_name)
        except InvalidRequest:  # the engine lives, and can do nothing with it
            await self._files.drop(state.file_name)
            raise
        own = state.session == ticket.session
        _log.info("state of a conversation restored", tokens=tokens, own=own)
        if own:
            contents.state, contents.saved, contents.restored = state, True, tokens

    async def _alike(self, instance: Instance, ticket: Ticket, owner: str) -> str | None:
        """The file of another conversation that begins like this one."""
        if common_chars(ticket.pieces, ticket.pieces) < _ALIKE_CHARS:
            return None
        found = await self._files.alike(owner, instance.spec.state_key)
        lengths = {name: common_chars(pieces, ticket.pieces) for name, pieces in found}
        best = max(lengths, key=lambda name: lengths[name], default="")
        return best if lengths.get(best, 0) >= _ALIKE_CHARS else None

    def _verify(self, instance: Instance, expected: int, cached: int) -> None:
        """Whether the engine has used what was read back; some do not say that they cannot."""
        key = instance.spec.state_key
        if cached >= expected // 2:
            self._ignored.pop(key, None)
            return
        self._ignored[key] = self._ignored.get(key, 0) + 1
        _log.warning("restored state not used", model=str(instance.spec.key), cached=cached)
