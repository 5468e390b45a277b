"""What an operator or the server itself asks for: load, keep, unload, remove and reload models."""

from __future__ import annotations

from myllm.errors import Conflict, InvalidRequest, ModelRemoved
from myllm.gateway.scheduling.fleet import Fleet
from myllm.gateway.scheduling.loader import Loader
from myllm.gateway.scheduling.rejections import give_up
from myllm.gateway.scheduling.tickets import Action
from myllm.supervisor.spec import InstanceKey


class ModelCommands:
    """Commands by key, for one role of a model, or by a model's `name`, for all of its roles.

    `drain_grace_s` is how long running answers may go on when their engine is forced to leave.
    """

    def __init__(self, fleet: Fleet, loader: Loader, drain_grace_s: float) -> None:
        self._fleet = fleet
        self._loader = loader
        self._drain_grace_s = drain_grace_s

    def load(self, key: InstanceKey, now: float) -> list[Action]:
        """Load `key` although no request waits for it."""
        model = self._fleet.model(key)
        model.wanted = model.run is None
        return self._loader.load_if_needed(model, now)

    def keep_loaded(self, key: InstanceKey, keep_alive_s: float | None, now: float) -> bool:
        """Keep `key` loaded as if a request with this `keep_alive_s` had just ended. False if it is
        not ready, and nothing has changed."""
        run = self._fleet.model(key).run
        if self._fleet.shutting_down or run is None or run.state != "ready":
            return False
        run.idle_since = now
        if keep_alive_s is not None:
            run.keep_alive_s = keep_alive_s
        return True

    def unload(self, name: str, force: bool, now: float) -> list[Action]:
        """Stop every engine of `name`.

        Raises InvalidRequest if none is loaded, and Conflict if one is answering; with `force`,
        running answers get their grace instead.
        """
        if not self._fleet.is_loaded(name):
            raise InvalidRequest(f"Model '{name}' is not loaded")
        if not force:
            self.require_idle(name)
        return self._drain_all(name, "unloaded", now)

    def remove(self, name: str, now: float) -> list[Action]:
        """The files of `name` are gone: reject the requests that wait for it, and stop its engines
        after the grace of their running answers."""
        actions: list[Action] = []
        for model in self._fleet.models(name):
            actions += give_up(model, ModelRemoved(name))
            model.backoff.reset()
        return actions + self._drain_all(name, "removed", now)

    def require_idle(self, name: str) -> None:
        """Raise Conflict if requests for `name` are being answered, or wait for it."""
        models = self._fleet.models(name)
        requests = sum(len(model.active()) + len(model.queue) for model in models)
        if requests:
            raise Conflict(
                f"Model '{name}' is answering {requests} request(s); "
                "try again when it is idle, or force it"
            )

    def reload(self, name: str) -> list[Action]:
        """Replace the engines of `name`: start new ones, then drain the old ones. No request
        fails."""
        actions: list[Action] = []
        for model in self._fleet.models(name):
            if model.run is not None:
                model.replace = True
                actions += self._loader.replace_if_due(model)
        return actions

    def _drain_all(self, name: str, reason: str, now: float) -> list[Action]:
        actions: list[Action] = []
        for model in self._fleet.models(name):
            model.wanted = model.replace = False
            for run in model.runs():
                actions += self._fleet.drain(run, reason, until=now + self._drain_grace_s)
        return actions
