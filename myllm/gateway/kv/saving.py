"""Save the KV state of slots to files: after a turn, before another session, before the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from myllm.errors import MyLLMError
from myllm.gateway.engine_io import calls
from myllm.gateway.kv.slot_contents import SlotContents
from myllm.loops import in_background
from myllm.sessions.kv_files import KvFiles
from myllm.sessions.kv_states import KvState
from myllm.sessions.session import SessionRef
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceSpec

_log = structlog.get_logger(__name__)
_SAVE_AFTER_S = 3.0
# An engine answers no request while it saves a slot. A save after a turn is therefore postponed
# while the engine answers others, but not more often than this.
_MAX_POSTPONED = 10
# A prompt that the engine reads again in less time than this is not worth a file.
_WORTH_S = 0.008


class KvSaver:
    """Saves slots into `files`.

    `speed` returns how many tokens of a prompt an engine reads per second, `restore_problem` why
    an engine cannot restore what was saved, and `is_busy` whether a run answers any request.
    """

    def __init__(
        self,
        files: KvFiles,
        speed: Callable[[InstanceSpec], float],
        restore_problem: Callable[[InstanceSpec], str | None],
        is_busy: Callable[[int], bool],
    ) -> None:
        self._files = files
        self._speed = speed
        self._restore_problem = restore_problem
        self._is_busy = is_busy
        self._tasks: set[asyncio.Task[None]] = set()
        self._being_saved: list[SlotContents] = []

    def being_saved(self, session: SessionRef) -> list[SlotContents]:
        """Return the slots of a session that are being saved, also those of ended engines."""
        return [contents for contents in self._being_saved if contents.session == session]

    def save_later(self, instance: Instance, slot: int, contents: SlotContents) -> None:
        """Save a slot in a few seconds, unless a request takes it first."""
        contents.cancel_save()
        later = asyncio.get_running_loop().call_later
        contents.save_timer = later(_SAVE_AFTER_S, self._save_idle, instance, slot, contents)

    def _save_idle(self, instance: Instance, slot: int, contents: SlotContents) -> None:
        if self._is_busy(instance.run_id) and contents.postponed < _MAX_POSTPONED:
            contents.postponed += 1
            self.save_later(instance, slot, contents)
        elif not contents.in_use:
            self.save_now(instance, slot, contents)

    def save_now(self, instance: Instance, slot: int, contents: SlotContents) -> asyncio.Task[None]:
        """Save a slot in a task of its own, which goes on when the caller is cancelled.

        Nothing is saved if a request takes the slot before the save begins. A request that comes
        later waits for the lock.
        """
        taken_by = contents.taken_by

        async def save() -> None:
            async with contents.lock:
                if contents.taken_by is taken_by:
                    await self.save(instance, slot, contents)

        task = in_background("saving a conversation's state", save())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def is_due(self, instance: Instance, contents: SlotContents) -> bool:
        """Return whether a slot holds what no file has, and what is worth one."""
        kv = contents.kv
        if kv is None or contents.saved or instance.is_over():
            return False
        if self._restore_problem(instance.spec) is not None:
            return False
        return len(kv.prefix.tokens) / self._speed(instance.spec) > _WORTH_S

    async def save(self, instance: Instance, slot: int, contents: SlotContents) -> None:
        """Save a slot whose lock the caller holds, if it holds what no file has.

        A failure is logged; the next turn then reads its history again.
        """
        kv = contents.kv
        if kv is None or not self.is_due(instance, contents):
            return
        aside = None
        self._being_saved.append(contents)
        try:
            aside = await self._files.new_aside()
            tokens = await calls.save_slot(instance, slot, aside)
            if contents.kv is kv and _can_continue(instance, kv, tokens):
                await self._files.keep(aside, kv)
            contents.mark_saved(kv)
        except (MyLLMError, OSError) as failure:
            _log.warning("state of a conversation not saved", cause=str(failure))
        finally:
            self._being_saved.remove(contents)
            if aside is not None:
                self._files.discard(aside)


def _can_continue(instance: Instance, kv: KvState, tokens: int) -> bool:
    """Whether the next prompt can continue from the `tokens` tokens that the engine has saved.

    A slot may have read beyond the answer: a stop string, or tokens that came after the client
    had left. A recurrent model's state cannot go back behind them.
    """
    exact = tokens <= len(kv.prefix.tokens)
    return exact or instance.spec.model.header.cache_kind != "recurrent"
