"""Keys that change while a server runs, when it starts without any, and what each role may do."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.api.credentials import ANN, BOB, bearer, port_of
from tests.api.events import detail
from tests.keys import add_keys, change_keys
from tests.serving import Serving, environment, serving, short_home, wait_until

# The server promises two seconds; a busy machine may take longer.
SOON_S = 20.0
LONG = {"max_tokens": 300, "temperature": 2, "min_p": 0, "top_k": 0}


def status(server: Serving, key: str, path: str = "/api/models") -> int:
    with server.client() as client:
        return client.get(path, headers=bearer(key) if key else {}).status_code


def becomes(server: Serving, key: str, wanted: int) -> None:
    wait_until(lambda: status(server, key) == wanted, SOON_S, f"status {wanted}")


def test_the_first_key_closes_a_running_server_for_good(engine: Engine, home: Path) -> None:
    with serving(home) as server:
        assert status(server, "") == 200
        add_keys(home, "admin", ann=ANN)
        becomes(server, "", 401)
        assert status(server, ANN) == 200
        assert status(server, BOB) == 401
        assert status(server, "", "/health") == 200
        add_keys(home, bob=BOB)
        becomes(server, BOB, 200)
        for name, key in (("ann", ANN), ("bob", BOB)):
            change_keys(home, lambda keys, name=name: keys.revoke(name))
            becomes(server, key, 401)
        assert status(server, "") == 401, "the last key is gone, and the server stays closed"
        assert "from now on every request needs an API key" in server.log
    with serving(home) as server:
        assert status(server, "") == 200, "a restarted server is open again on a loopback address"


@pytest.mark.parametrize("how", ["revoked", "disabled", "expired"])
def test_a_key_that_ends_in_the_middle_of_a_stream(engine: Engine, home: Path, how: str) -> None:
    add_keys(home, "admin", bob=BOB)
    add_keys(home, ann=ANN)
    with serving(home) as server, server.client() as ann:
        assert ann.post("/api/models/demo/load", headers=bearer(BOB)).status_code == 200
        ann.headers.update(bearer(ANN))
        body = {"model": "demo", "prompt": "One two", "options": LONG}
        with ann.stream("POST", "/api/generate", json=body) as answer:
            lines = answer.iter_lines()
            first = next(lines)
            [running] = server.engines()
            running.suspend()  # or it could be done before the key ends
            if how == "revoked":
                change_keys(home, lambda keys: keys.revoke("ann"))
            else:
                change = {"disabled": True} if how == "disabled" else {"expires": time.time() + 1}
                change_keys(home, lambda keys: keys.update("ann", change))
            becomes(server, ANN, 401)
            running.resume()
            rest = [line for line in lines if line]
        assert '"error"' not in "".join([first, *rest])
        assert '"done":true' in rest[-1]
        words = {"revoked": "not known", "disabled": "is disabled", "expired": "has expired"}
        assert words[how] in detail(ann.get("/api/models"), 401)
        seen = ann.get("/api/requests?status=401", headers=bearer(BOB)).json()["requests"]
        # A key that was revoked is not known, so its requests have an address alone.
        assert seen[0]["key"] == (None if how == "revoked" else "ann")


def test_no_request_is_answered_as_if_the_server_were_open(engine: Engine, home: Path) -> None:
    """From the moment that it listens, before it has read the keys."""
    add_keys(home, "admin", ann=ANN)
    seen: list[tuple[str, int]] = []
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def ask(key: str) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            while not over.is_set():
                try:
                    answer = client.get("/api/models", headers=bearer(key) if key else {})
                except httpx.TransportError:
                    time.sleep(0.001)
                    continue
                seen.append((key, answer.status_code))

    threads = [threading.Thread(target=ask, args=(key,)) for key in ("", ANN, BOB)]
    command = [sys.executable, "-m", "myllm", "serve", "--port", str(port)]
    with (home / "stderr.log").open("w") as stderr:
        process = subprocess.Popen(
            command, env=environment(home), cwd=home, stdout=subprocess.DEVNULL, stderr=stderr
        )
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: {key for key, _ in seen} >= {"", ANN, BOB}, 30, "answers to all")
        time.sleep(1)
    finally:
        over.set()
        process.terminate()
        process.wait(20)
        for thread in threads:
            thread.join(20)
    answered = {key: {code for each, code in seen if each == key} for key in ("", ANN, BOB)}
    # 503: while it stops.
    assert answered[""] <= {401, 503}
    assert answered[BOB] <= {401, 503}
    assert answered[ANN] <= {200, 503}


# The start


def failed_start(home: Path, **settings: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "myllm", "serve", "--port", "0"],
        env=environment(home, **settings), cwd=home, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode in (1, 2)
    *warnings, error = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert all("api_keys_file" in each.lower() for each in warnings)
    return error


def test_an_address_for_others_needs_a_key(engine: Engine, home: Path) -> None:
    told = failed_start(home, host="0.0.0.0")
    assert "myllm key create" in told
    assert "MYLLM_ALLOW_ANONYMOUS=true" in told
    add_keys(home, ann=ANN)
    with serving(home, host="0.0.0.0") as server:
        assert [status(server, key) for key in ("", BOB, ANN)] == [401, 401, 200]
        assert "warning: " not in server.log
    change_keys(home, lambda keys: keys.revoke("ann"))
    assert "MYLLM_ALLOW_ANONYMOUS=true" in failed_start(home, host="0.0.0.0")


def test_an_admin_key_is_enough(engine: Engine, home: Path) -> None:
    file = home / "secret"
    file.write_text(f"{ANN}\n")
    with serving(home, host="0.0.0.0", admin_key_file=file) as server, server.client() as ann:
        assert [status(server, key) for key in ("", BOB, ANN)] == [401, 401, 200]
        file.write_text(BOB)
        assert ann.post("/api/reload", headers=bearer(ANN)).status_code == 200
        assert [status(server, key) for key in ("", BOB, ANN)] == [401, 200, 401]


def test_anonymous_use_ends_with_the_first_key(engine: Engine, home: Path) -> None:
    with serving(home, host="0.0.0.0", allow_anonymous=True) as server:
        assert status(server, "") == 200
        add_keys(home, ann=ANN)
        becomes(server, "", 401)
        change_keys(home, lambda keys: keys.revoke("ann"))
        becomes(server, ANN, 401)
        assert status(server, "") == 401


def test_a_useless_admin_key_stops_the_start(home: Path) -> None:
    file = home / "secret"
    assert "cannot be read" in failed_start(home, admin_key_file=file)
    assert "not both" in failed_start(home, admin_key_file=file, admin_key=ANN)
    told = failed_start(home, admin_key="two secret words")
    assert "secret words" not in told


def test_a_keys_file_of_earlier_versions_stops_the_start(home: Path) -> None:
    for settings in ({"api_keys_file": home / "keys"}, {}):
        told = failed_start(home, **settings)
        assert "'myllm key import FILE'" in told
        (home / "config.toml").write_text("api_keys_file = '/keys'\n")


# Wrong keys


def test_wrong_keys_are_slowed_down_and_right_ones_are_not(
    locked: Serving, door: httpx.Client
) -> None:
    for _ in range(5):
        assert door.get("/api/models", headers=bearer("wrong")).status_code == 401
    began = time.monotonic()
    guess = threading.Thread(target=lambda: door.get("/api/models", headers=bearer("wrong")))
    guess.start()
    time.sleep(0.2)
    assert guess.is_alive(), "the answer waits"
    assert status(locked, ANN) == 200
    guess.join(20)
    assert time.monotonic() - began > 0.8


def test_an_enormous_key_is_refused(locked: Serving) -> None:
    with socket.create_connection(("127.0.0.1", port_of(locked)), timeout=20) as connection:
        head = b"GET /api/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "
        answer = b""
        with suppress(OSError):  # the server has closed the connection
            connection.sendall(head + b"x" * 10_000_000 + b"\r\n\r\n")
        with suppress(OSError):
            answer = connection.makefile("rb").readline()
    assert not answer or answer.split()[1] == b"431"
    assert status(locked, ANN) == 200


# Roles

ADMINS_ONLY = [
    ("POST", "/api/models/demo/load"),
    ("POST", "/api/models/demo/unload"),
    ("POST", "/api/models/demo/reload"),
    ("POST", "/api/reload"),
    ("DELETE", "/api/models/demo"),
    ("POST", "/ollama/api/pull"),
    ("POST", "/ollama/api/copy"),
    ("DELETE", "/ollama/api/delete"),
    ("POST", "/ollama/api/generate"),
    ("POST", "/ollama/api/chat"),
    ("GET", "/upstream/demo/metrics"),
    ("GET", "/api/logs/demo"),
]
BODIES = {
    "/ollama/api/pull": {"model": "nowhere/nothing"},
    "/ollama/api/copy": {"source": "demo", "destination": "copy"},
    "/ollama/api/delete": {"model": "demo"},
    "/ollama/api/generate": {"model": "demo", "keep_alive": 0},
    "/ollama/api/chat": {"model": "demo", "keep_alive": 0},
}


@pytest.fixture(scope="module")
def roles(engine: Engine) -> Iterator[Serving]:
    """A server with a key of each role, which is the role's name."""
    with short_home() as home:
        for role in ("user", "admin", "metrics"):
            add_keys(home, role, **{role: role})
        with serving(home) as server:
            yield server


def test_requests_with_a_key_for_metrics_alone_have_its_name(roles: Serving) -> None:
    with roles.client() as client:
        assert client.get("/api/models", headers=bearer("metrics")).status_code == 403
        seen = client.get("/api/requests?status=403", headers=bearer("admin")).json()["requests"]
    assert (seen[0]["key"], seen[0]["path"]) == ("metrics", "/api/models")


@pytest.mark.parametrize(("method", "path"), ADMINS_ONLY)
def test_only_an_admin_operates_the_server(roles: Serving, method: str, path: str) -> None:
    with roles.client() as client:
        refused = client.request(method, path, json=BODIES.get(path), headers=bearer("user"))
        assert refused.status_code == 403, refused.text
        assert "'user' may not do this" in refused.text
        assert client.get("/api/models/demo", headers=bearer("user")).status_code == 200


def test_an_admin_operates_the_server(roles: Serving) -> None:
    with roles.client() as client:
        client.headers.update(bearer("admin"))
        for path in ("/api/models/demo/load", "/api/models/demo/reload", "/api/reload"):
            assert client.post(path).status_code == 200
        assert client.get("/upstream/demo/metrics").status_code == 200
        unload = {"model": "demo", "keep_alive": 0}
        assert client.post("/ollama/api/generate", json=unload).status_code == 200


def test_a_user_uses_models_in_every_dialect(roles: Serving) -> None:
    said = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
    with roles.client() as client:
        client.headers.update(bearer("user"))
        for path in ("/api/chat", "/v1/chat/completions", "/v1/messages", "/ollama/api/chat"):
            answer = client.post(path, json=said | {"stream": False})
            assert answer.status_code == 200, answer.text
        for path in ("/api/models", "/v1/models", "/ollama/api/tags", "/api/instances"):
            assert client.get(path).status_code == 200
        preload = {"model": "demo"}
        assert client.post("/ollama/api/generate", json=preload).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/api/models"), ("GET", "/api/instances"), ("POST", "/v1/chat/completions")],
)
def test_a_key_for_metrics_opens_nothing_else(roles: Serving, method: str, path: str) -> None:
    with roles.client() as client:
        refused = client.request(method, path, headers=bearer("metrics"))
        assert refused.status_code == 403, refused.text
        assert "is for GET /metrics alone" in refused.text
        assert client.get("/health", headers=bearer("metrics")).status_code == 200


def test_errors_of_roles_have_the_dialect_s_form(roles: Serving) -> None:
    with roles.client() as client:
        client.headers.update(bearer("user"))
        body = json.loads(client.request("DELETE", "/ollama/api/delete", json={"model": "x"}).text)
        assert set(body) == {"error"}
