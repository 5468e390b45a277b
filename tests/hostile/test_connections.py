"""More connections than the server accepts."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from myllm.engine.engine import Engine
from tests.hostile.attacks import others_are_served
from tests.hostile.raw import connect, head, is_closed, post, to_the_end
from tests.serving import Serving, serving, short_home, wait_until

_OTHER, _PROXY = "127.0.0.2", "127.0.0.3"
_MOST, _OF_ONE, _SPARE = 40, 30, 16  # the second is three quarters of the first
_HEALTH = head("GET", "/health")
_CHAT = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}], "stream": False}
# A request that stays active as long as its body does not end.
_BUSY = head("POST", "/api/chat", "Content-Type: application/json", "Content-Length: 9999") + b"{"


@pytest.fixture(scope="module")
def small(engine: Engine) -> Iterator[Serving]:
    """A server for few connections, behind a proxy."""
    limits = {"max_connections": _MOST, "trusted_proxies": _PROXY}
    with short_home() as home, serving(home, **limits) as running:
        assert _status(running, post("/api/chat", _CHAT)) == 200  # its engine runs now
        yield running


@pytest.fixture
def opened(small: Serving) -> Iterator[ExitStack]:
    """A stack for connections; afterwards, wait until the server has closed them all."""
    process = psutil.Process(small.process.pid)
    before = process.num_fds()
    with ExitStack() as held:
        yield held
    wait_until(lambda: process.num_fds() <= before + 2, 10, "connections closed")


def _busy(server: Serving, held: ExitStack, count: int, source: str) -> list[socket.socket]:
    clients = [held.enter_context(connect(server, source)) for _ in range(count)]
    for client in clients:
        client.sendall(_BUSY)
    time.sleep(0.3)  # until the server has read them all
    return clients


def _status(server: Serving, request: bytes, source: str | None = None) -> int:
    """The status of the answer on a new connection; 0 without an answer."""
    with connect(server, source) as client:
        with contextlib.suppress(OSError):
            client.sendall(request)
        response = client.recv(2**16)
        return int(response.split()[1]) if response else 0


def test_one_address_leaves_connections_for_the_others(small: Serving, opened: ExitStack) -> None:
    busy = _busy(small, opened, _OF_ONE, _OTHER)
    with others_are_served(small):
        with connect(small, _OTHER) as client:
            client.sendall(post("/v1/chat/completions", _CHAT))
            refused = to_the_end(client)
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 5" in refused
        assert b'{"error":{"message":"Too many connections' in refused
        assert _status(small, post("/api/chat", _CHAT)) == 200
        assert _status(small, _HEALTH, _OTHER) == 200
    assert not any(map(is_closed, busy))


def test_health_is_answered_when_all_connections_are_in_use(
    small: Serving, opened: ExitStack
) -> None:
    _busy(small, opened, _OF_ONE, _OTHER)
    _busy(small, opened, _MOST - _OF_ONE, "127.0.0.4")
    for source in (_OTHER, "127.0.0.4", "127.0.0.5"):
        assert _status(small, _HEALTH, source) == 200
        assert _status(small, post("/api/chat", _CHAT), source) == 503
    # Beyond the spare connections the server reads nothing.
    spare = [opened.enter_context(connect(small)) for _ in range(_SPARE)]
    for client in spare:
        client.sendall(_BUSY)  # the server refuses it, and closes if the client goes on sending
    with others_are_served(small, slowest_s=30):
        wait_until(lambda: _status(small, _HEALTH) == 200, 20, "served again")


def test_a_proxy_may_use_all_connections(small: Serving, opened: ExitStack) -> None:
    busy = _busy(small, opened, _OF_ONE + 5, _PROXY)
    assert _status(small, post("/api/chat", _CHAT), _PROXY) == 200
    assert not any(map(is_closed, busy))


@pytest.mark.parametrize("first", [b"", b"GET /hea", _HEALTH])
def test_the_longest_idle_connection_is_closed(
    small: Serving, opened: ExitStack, first: bytes
) -> None:
    """Idle connections are no reason to refuse new ones."""
    waiting = [opened.enter_context(connect(small)) for _ in range(_OF_ONE)]
    for client in waiting:
        client.sendall(first)
    time.sleep(0.3)
    with others_are_served(small):
        assert _status(small, post("/api/chat", _CHAT)) == 200
        for _ in range(200):
            assert _status(small, _HEALTH) == 200
    assert is_closed(waiting[0])


def test_a_flood_of_connections_is_survived(small: Serving, opened: ExitStack) -> None:
    with others_are_served(small):
        for _ in range(3000):
            connect(small, _OTHER).close()


def test_few_descriptors_and_many_idle_connections(engine: Engine) -> None:
    """The server answers /health and replaces a hung engine."""
    with (
        short_home() as home,
        serving(home, descriptors=(256, 256), hang_timeout=2) as server,
        ExitStack() as held,
    ):
        assert _status(server, post("/api/chat", _CHAT)) == 200
        with others_are_served(server):
            clients = [held.enter_context(connect(server)) for _ in range(400)]
            wait_until(lambda: sum(map(is_closed, clients)) >= 400 - 256, 10, "many are closed")
            [hung] = server.engines()
            hung.suspend()
            with connect(server) as client:
                client.settimeout(60)
                client.sendall(post("/api/chat", _CHAT))
                assert client.recv(100).startswith(b"HTTP/1.1 200 ")
            [engine_now] = server.engines()
            assert engine_now.pid != hung.pid


def test_the_soft_limit_is_raised(engine: Engine, home: Path) -> None:
    with serving(home, descriptors=(64, 1024)) as server:
        limits = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        assert limits == (1024, 1024)
        assert _status(server, post("/api/chat", _CHAT)) == 200


@pytest.mark.more
def test_no_free_descriptor_at_all(engine: Engine) -> None:
    """The server neither spins nor stops accepting, and replaces a hung engine."""
    with short_home() as home, serving(home, hang_timeout=2) as server, ExitStack() as held:
        assert _status(server, post("/api/chat", _CHAT)) == 200
        [hung] = server.engines()
        process, kind = psutil.Process(server.process.pid), resource.RLIMIT_NOFILE
        limits = resource.prlimit(process.pid, kind)
        asking = held.enter_context(connect(server))
        asking.settimeout(60)
        hung.suspend()
        asking.sendall(post("/api/chat", _CHAT))
        time.sleep(0.5)
        resource.prlimit(process.pid, kind, (process.num_fds(), limits[1]))
        used = sum(process.cpu_times()[:2])
        for _ in range(50):
            held.enter_context(connect(server))
        time.sleep(2)
        assert sum(process.cpu_times()[:2]) - used < 1
        resource.prlimit(process.pid, kind, limits)
        response = asking.recv(2**16)
        assert response.startswith(b"HTTP/1.1 200 ") or b"Too many open files" in response, response
        wait_until(lambda: _status(server, post("/api/chat", _CHAT)) == 200, 30, "served again")
        assert hung not in server.engines()
