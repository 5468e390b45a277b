"""Notices when a running model's folder differs from what its engine was started with.

A running engine does not depend on its folder, so nothing is done: the difference is shown with the
instance and logged once, until the folder is as before or the model is reloaded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NoReturn

import structlog

from myllm.loops import keep_running
from myllm.models.folder_changes import warnings_on
from myllm.models.registry import Registry
from myllm.supervisor.instance import Instance

_log = structlog.get_logger(__name__)
_EVERY_S = 2.0


class DiskWatch:
    """Looks at the folder of each model that runs, every two seconds."""

    def __init__(self, registry: Registry, instances: Iterable[Instance]) -> None:
        self._registry = registry
        self._instances = instances

    async def run(self) -> NoReturn:
        """Look, until cancelled."""
        await keep_running("disk watch", self._look_at_all, _EVERY_S)

    async def _look_at_all(self) -> None:
        """Look at every model, even if that fails for some; raises the last failure."""
        failed: Exception | None = None
        for instance in list(self._instances):
            try:
                await self.look(instance)
            except Exception as failure:  # noqa: BLE001 - raised below
                failed = failure
        if failed is not None:
            raise failed

    async def look(self, instance: Instance) -> None:
        """Compare one instance's model with the disk, in a thread: the disk may be slow."""
        model = instance.spec.model
        known, found = (
            instance.warnings,
            await asyncio.to_thread(warnings_on, self._registry, model),
        )
        instance.warnings = found
        key = str(instance.spec.key)
        for warning in found:
            if warning not in known:
                _log.warning("model differs from its folder", model=key, how=warning)
        if known and not found:
            _log.info("model no longer differs from its folder", model=key)
