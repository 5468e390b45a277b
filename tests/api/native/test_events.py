"""The feed of changes, through a real server and real engines."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from myllm.engine.engine import Engine
from myllm.sessions.keys import KeyRules
from tests.api.credentials import ANN, BOB, bearer, port_of
from tests.api.events import detail, post
from tests.keys import add_key, change_keys
from tests.serving import Serving, serving, wait_until
from tests.toys import add_toy

HI = [{"role": "user", "content": "Hello"}]
WAIT_S = 30.0


class Reader:
    """A client that listens."""

    def __init__(self, answer: httpx.Response) -> None:
        self._lines = answer.iter_lines()
        self.last_id = ""

    def next(self) -> tuple[str, dict[str, Any]]:
        """The next event: its name and its data."""
        name = ""
        for line in self._lines:
            field, _, value = line.partition(": ")
            match field:
                case "id":
                    self.last_id = value
                case "event":
                    name = value
                case "data":
                    return name, json.loads(value)
        raise EOFError

    def until(self, name: str, **data: Any) -> dict[str, Any]:
        """Read up to the event of this name that has these data."""
        ends = time.monotonic() + WAIT_S
        seen = []
        while time.monotonic() < ends:
            found, got = self.next()
            seen.append(found)
            if found == name and got | data == got:
                return got
        raise AssertionError(f"no {name} {data} in {seen}")


@contextmanager
def listening(api: httpx.Client, **headers: str) -> Iterator[Reader]:
    with api.stream("GET", "/api/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        yield Reader(answer)


def test_a_snapshot_and_then_the_life_of_an_engine(api: httpx.Client) -> None:
    with listening(api) as reader:
        name, snapshot = reader.next()
        assert name == "snapshot"
        assert {"name": "demo", "status": "unloaded"} in snapshot["models"]
        assert (snapshot["instances"], snapshot["pulls"]) == ([], [])
        assert snapshot["memory"]["host"]["free_mb"] > 0
        post(api, "/api/chat", model="demo", messages=HI, stream=False)
        assert reader.until("loading")["model"] == "demo"
        assert reader.until("ready", role="generate")["load_seconds"] > 0
        reader.until("queue", busy=0, queued=0, slots=4)
        reader.until("memory")
        post(api, "/api/models/demo/unload")
        assert reader.until("unloaded")["reason"] == "unloaded"


def test_models_that_come_and_go(api: httpx.Client, server: Serving) -> None:
    with listening(api) as reader:
        add_toy(server.models_dir, "comes")
        assert reader.until("model_found") == {"model": "comes"}
        shutil.rmtree(server.models_dir / "comes")
        assert reader.until("model_removed") == {"model": "comes"}


def test_an_eviction_says_for_whom(engine: Engine, home: Path) -> None:
    add_toy(home / "models")
    with serving(home, max_loaded_models=1) as server, server.client() as api:
        post(api, "/api/models/demo/load")
        with listening(api) as reader:
            post(api, "/api/models/toy/load")
            assert reader.until("evicted")["for"] == "toy"
            assert reader.until("unloaded", model="demo")["reason"] == "evicted for toy"
            reader.until("ready", model="toy")


def test_a_model_that_cannot_be_loaded(engine: Engine, home: Path) -> None:
    with (
        serving(home, memory_budget_mb=1) as server,
        server.client() as api,
        listening(api) as reader,
    ):
        refused = detail(api.post("/api/models/demo/load"), 507)
        assert reader.until("failed", model="demo")["error"] == refused


def test_a_reader_that_comes_back_misses_nothing(api: httpx.Client) -> None:
    with listening(api) as reader:
        reader.next()
        last = reader.last_id
    post(api, "/api/models/demo/load")
    with listening(api, **{"Last-Event-ID": last}) as reader:
        name, _ = reader.next()
        assert name == "loading"
        reader.until("ready")
        last = reader.last_id
    with api.stream("GET", "/api/events", params={"after": last}) as answer:
        reader = Reader(answer)
        post(api, "/api/models/demo/unload")
        assert reader.until("unloaded")


@pytest.mark.parametrize("last", ["nonsense", "00000000-1", "-", "9" * 1000, "1-1, 2-2"])
def test_after_an_unknown_id_comes_a_snapshot(api: httpx.Client, last: str) -> None:
    with listening(api, **{"Last-Event-ID": last}) as reader:
        assert reader.next()[0] == "snapshot"


def test_an_id_that_is_too_long_is_refused(api: httpx.Client) -> None:
    assert detail(api.get("/api/events", headers={"Last-Event-ID": "9" * 2000}), 400)


def test_a_user_sees_models_and_queues_alone(door: httpx.Client) -> None:
    with listening(door, **bearer(ANN)) as admin, listening(door, **bearer(BOB)) as user:
        assert {"memory", "pulls"} <= admin.next()[1].keys()
        assert user.next()[1].keys() == {"models", "instances"}
        loaded = door.post("/api/models/demo/load", headers=bearer(ANN))
        assert loaded.status_code == 200
        admin.until("memory")
        seen = [user.next()[0] for _ in range(3)]
        assert seen[0] == "loading"
        assert set(seen) <= {"loading", "ready", "queue"}


def test_models_outside_the_scope_of_a_key_do_not_exist(engine: Engine, home: Path) -> None:
    add_toy(home / "models", aliases=["plaything"])
    add_key(home, "ann", ANN, KeyRules(role="admin"))
    add_key(home, "bob", BOB, KeyRules(models=("plaything",)))
    with serving(home) as server, server.client() as api, listening(api, **bearer(BOB)) as user:
        assert user.next()[1]["models"] == [{"name": "toy", "status": "unloaded"}]
        for name in ("demo", "toy"):
            loaded = api.post(f"/api/models/{name}/load", headers=bearer(ANN))
            assert loaded.status_code == 200
        name, first = user.next()
        assert (name, first["model"]) == ("loading", "toy")


@pytest.mark.parametrize("change", ["revoked", "changed"])
def test_the_feed_ends_with_the_key(engine: Engine, home: Path, change: str) -> None:
    add_key(home, "ann", ANN, KeyRules(role="admin"))
    add_key(home, "bob", BOB, KeyRules(role="admin"))
    with serving(home) as server, server.client() as api, listening(api, **bearer(BOB)) as reader:
        reader.until("memory")
        if change == "revoked":
            change_keys(home, lambda keys: keys.revoke("bob"))
        else:
            change_keys(home, lambda keys: keys.update("bob", {"models": ("nothing",)}))
        with pytest.raises(EOFError):
            reader.until("an event that never comes")
        again = api.get("/api/models", headers=bearer(BOB))
        assert again.status_code == (401 if change == "revoked" else 200)


def test_the_feed_ends_with_the_server(engine: Engine, home: Path) -> None:
    with serving(home) as server, server.client() as api, listening(api) as reader:
        reader.next()
        began = time.monotonic()
        server.process.terminate()
        with pytest.raises(EOFError):
            reader.until("an event that never comes")
        assert server.process.wait(20) == 0
        assert time.monotonic() - began < 10


def test_too_many_listeners_are_refused(api: httpx.Client, server: Serving) -> None:
    request = b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
    connections = []
    try:
        for _ in range(100):
            connection = socket.create_connection(("127.0.0.1", port_of(server)))
            connections.append(connection)
            connection.sendall(request)
        for connection in connections:
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        assert "listen to the events" in detail(api.get("/api/events"), 503)
    finally:
        for connection in connections:
            connection.close()

    def accepted() -> bool:
        with api.stream("GET", "/api/events") as answer:
            return answer.status_code == 200

    wait_until(accepted, 10, "their places are free again")
