"""Fixtures of all tests (the engine, a server and its client), and the tests to leave out here."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from myllm.engine.engine import Engine
from myllm.engine.find import find_engine
from myllm.settings import load_settings
from tests import postgres
from tests.big_model import big_model  # noqa: F401 - a fixture
from tests.clients.isolated import can_isolate
from tests.control_groups import can_limit_cpus
from tests.serving import Serving, serving, short_home


def _has_ipv6() -> bool:
    with suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


_KEPT = ("MYLLM_CACHE_DIR", "MYLLM_LLAMA_SERVER", "MYLLM_PYTHON")
_NEEDS = {
    "needs_root": lambda: os.geteuid() == 0,
    "needs_node": lambda: bool(shutil.which("node") and shutil.which("npm")),
    "needs_java": lambda: bool(shutil.which("java")),
    "needs_cpu_quota": can_limit_cpus,
    "needs_network_namespace": can_isolate,
    "needs_prometheus": lambda: bool(shutil.which("prometheus") and shutil.which("promtool")),
    "needs_postgres": lambda: postgres.programs() is not None,
    "needs_ipv6": _has_ipv6,
}


def pytest_configure() -> None:
    """Keep the calling shell from changing the commands under test.

    A shell starts background jobs with SIGINT ignored, and Python then leaves it ignored. Only the
    settings that locate the engine stay, as in scripts/test.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored below `nohup`
    for name in list(os.environ):
        if name.upper().startswith("MYLLM_") and name not in _KEPT:
            del os.environ[name]
    os.environ["MYLLM_CONFIG"] = os.devnull


@pytest.hookimpl(tryfirst=True)  # before pytest itself evaluates the markers
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests that need a compiled engine as `full`; leave out those whose tool is missing.

    CI must have all tools; elsewhere, one line for each missing tool names the number of tests.
    """
    for item in items:
        if "engine" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.full)
    if os.environ.get("CI"):
        return
    for marker, available in _NEEDS.items():
        if available():
            continue
        left_out = [item for item in items if item.get_closest_marker(marker)]
        if left_out:
            items[:] = [item for item in items if item not in left_out]
            config.hook.pytest_deselected(items=left_out)
            print(f"left out {len(left_out)} tests that are marked {marker}")


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The compiled llama-server."""
    found = find_engine(load_settings())
    assert found is not None, "no engine; compile one with 'scripts/myllm engine build'"
    return found


@pytest.fixture
def home() -> Iterator[Path]:
    """A temporary directory of one test, with a path short enough for Unix sockets."""
    with short_home() as path:
        yield path


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    """A server with the demo model, shared by the tests of one file."""
    with short_home() as path, serving(path) as running:
        yield running


@pytest.fixture
def api(server: Serving) -> Iterator[httpx.Client]:
    """A client of that server."""
    with server.client() as client:
        yield client
