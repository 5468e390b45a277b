"""Keys and their owners, through a real server on a socket and the real command line."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.api.credentials import ANN, BOB, bearer, port_of
from tests.api.events import detail, post
from tests.keys import add_keys
from tests.serving import Serving, environment, wait_until


@pytest.mark.parametrize(
    "headers",
    [
        bearer(ANN),
        {"Authorization": f"bearer  {ANN}"},
        {"X-Api-Key": ANN},
        {"Authorization": "Basic YTpi", "X-Api-Key": BOB},
        {"Authorization": "Bearer for-the-proxy", "X-Api-Key": BOB},
    ],
)
def test_both_headers_carry_a_key(door: httpx.Client, headers: dict[str, str]) -> None:
    assert door.get("/api/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "asks for a key"),
        ({"Authorization": "Bearer"}, "asks for a key"),
        ({"Authorization": f"Basic {ANN}"}, "asks for a key"),
        ({"Cookie": f"key={ANN}"}, "asks for a key"),
        (bearer(ANN[:-1]), "not known"),
        (bearer("ann"), "not known"),
        ({"X-Api-Key": ANN.upper()}, "not known"),
    ],
)
@pytest.mark.parametrize(
    "path", ["/api/models", "//api/instances/", "/docs/x", "/swagger", "/nowhere", "/health/x"]
)
def test_without_a_key_nothing_is_revealed(
    door: httpx.Client, path: str, headers: dict[str, str], words: str
) -> None:
    refused = door.get(path, headers=headers)
    assert words in detail(refused, 401)
    assert refused.headers["www-authenticate"] == "Bearer"
    assert ANN not in refused.text


def test_a_key_in_the_address_does_not_count(door: httpx.Client) -> None:
    assert door.get("/api/models", params={"key": ANN, "api_key": ANN}).status_code == 401


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", "healthy"),
        ("/health", "healthy"),
        ("/health/live", "alive"),
        ("/health/ready", "ready"),
    ],
)
def test_health_needs_no_key(door: httpx.Client, path: str, status: str) -> None:
    for headers in ({}, bearer("wrong")):
        assert door.get(path, headers=headers).json()["status"] == status


def test_the_documentation_needs_no_key(door: httpx.Client) -> None:
    page = door.get("/docs").text
    script = page.split('src="')[1].split('"')[0]
    assert door.get(f"/{script}").status_code == 200
    assert door.get("/openapi.json").json()["info"]["title"] == "MyLLM"


def test_a_large_body_without_a_key_gets_its_401(locked: Serving) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(locked), timeout=20)
    for _ in range(2):  # the connection is usable afterwards
        connection.request("POST", "/api/chat", body=b"x" * 8_000_000)
        answer = connection.getresponse()
        assert answer.status == 401
        answer.read()
    connection.close()


def test_the_openapi_document_describes_the_key(door: httpx.Client) -> None:
    described = door.get("/openapi.json", headers=bearer(ANN)).json()
    schemes = described["components"]["securitySchemes"]
    assert list(schemes.values()) == [
        {"type": "http", "scheme": "bearer"},
        {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
    ]
    assert described["paths"]["/api/chat"]["post"]["security"] == [{name: []} for name in schemes]
    assert "security" not in described["paths"]["/health"]["get"]


def test_two_owners_choose_the_same_session_id(door: httpx.Client) -> None:
    def say(key: str, text: str) -> str:
        door.headers.update(bearer(key))
        answer = post(
            door, "/api/chat", model="demo", session_id="mine", stream=False,
            messages=[{"role": "user", "content": text}],
        )  # fmt: skip
        assert answer["session_id"] == "mine"
        return str(answer["message"]["content"])

    say(ANN, "My name is Tobias.")
    assert "Tobias" not in say(BOB, "What is my name?")
    assert "Tobias" in say(ANN, "What is my name?")


def test_no_key_is_in_any_log(locked: Serving, door: httpx.Client) -> None:
    body = {"model": "demo", "prompt": "x", "stream": False, "options": {"max_tokens": 3}}
    assert door.post("/api/generate", headers=bearer(ANN), json=body).status_code == 200
    door.post("/api/generate", headers=bearer("wrong-key-0123456789"), json=body)
    door.post("/api/generate", headers={"X-Api-Key": BOB}, content=b"{")
    wait_until(lambda: '"status":400' in locked.log, 10, "the last request's line")
    written = [file for file in locked.home.rglob("*") if file.is_file()]
    assert any(file.suffix == ".log" and file.parent.name == "logs" for file in written)
    for file in written:
        assert b"key-0123456789" not in file.read_bytes(), file
    for engine in locked.engines():
        assert "key-0123456789" not in " ".join([*engine.cmdline(), *engine.environ().values()])


def test_the_log_names_the_key(locked: Serving, door: httpx.Client) -> None:
    answer = door.get("/api/models", headers=bearer(BOB))
    request_id = answer.headers["x-request-id"]
    wait_until(lambda: request_id in locked.log, 10, "the request's line")
    [line] = [line for line in locked.log.splitlines() if request_id in line]
    assert json.loads(line)["client"] == "bob"


# The command line


def myllm(server: Serving, key: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "myllm", *arguments],
        env=environment(server.home, port=port_of(server), api_key=key), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_the_command_line_shows_its_key(locked: Serving) -> None:
    assert myllm(locked, ANN, "ps").returncode == 0
    answer = myllm(locked, ANN, "run", "demo", "What is the capital of France?")
    assert answer.stdout == "The capital of France is Paris.\n"


@pytest.mark.parametrize(
    ("key", "words"),
    [("", "asks for a key"), ("wrong", "not known"), ("a\nb", "no key has")],
)
@pytest.mark.parametrize("command", [("ps",), ("run", "demo", "Hi"), ("unload", "demo")])
def test_the_command_line_says_what_to_set(
    locked: Serving, door: httpx.Client, key: str, words: str, command: tuple[str, ...]
) -> None:
    done = myllm(locked, key, *command)
    assert done.returncode == 1
    assert words in done.stderr
    assert "MYLLM_API_KEY" in done.stderr
    assert done.stderr.count("\n") == 1
    assert door.get("/api/models/demo", headers=bearer(ANN)).status_code == 200


def test_run_needs_no_key_for_a_server_of_its_own(engine: Engine, home: Path) -> None:
    add_keys(home, ann=ANN)
    done = subprocess.run(
        [sys.executable, "-m", "myllm", "run", "demo", "What is the capital of France?"],
        env=environment(home, port=1), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "The capital of France is Paris.\n"
