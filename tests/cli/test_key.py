"""`myllm key`, with a server and without one."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.api.credentials import bearer, port_of
from tests.serving import environment, serving, wait_until

pytestmark = pytest.mark.full  # a process for each command

ADMIN = "admin-key-0123456789"


def myllm(home: Path, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "myllm", *arguments],
        env=environment(home, **{"port": 1} | settings), cwd=home, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def key(home: Path, *arguments: str, **settings: object) -> str:
    """What `myllm key` prints on stdout."""
    done = myllm(home, "key", *arguments, **settings)
    assert done.returncode == 0, done.stderr
    return done.stdout


def failure(home: Path, *arguments: str, **settings: object) -> str:
    done = myllm(home, "key", *arguments, **settings)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    return done.stderr


def status(client: httpx.Client, secret: str, path: str = "/api/models") -> int:
    return client.get(path, headers=bearer(secret)).status_code


def test_the_first_key_is_made_before_the_server_starts(engine: Engine, home: Path) -> None:
    refused = failure(home, "create", "ann")
    assert refused.startswith("error: The first key must be an admin's")
    made = myllm(home, "key", "create", "root", "--role", "admin")
    secret = made.stdout.strip()
    assert made.stdout == f"{secret}\n"
    assert "MYLLM_API_KEY" in made.stderr
    assert secret not in made.stderr
    with serving(home) as server, server.client() as client:
        assert client.get("/api/models").status_code == 401
        assert status(client, secret, "/api/keys") == 200
        mine = {"port": port_of(server), "api_key": secret}
        user = key(home, "create", "ann", "--models", "demo", **mine).strip()
        wait_until(lambda: status(client, user) == 200, 20, "the new key")
        assert "MYLLM_API_KEY" in failure(home, "list", port=port_of(server))
        assert "only an admin may" in failure(home, "list", **mine | {"api_key": user})


def test_the_first_key_is_made_on_a_server_that_asked_for_none(engine: Engine, home: Path) -> None:
    with serving(home) as server, server.client() as client:
        port = port_of(server)
        secret = key(home, "create", "root", "--role", "admin", port=port).strip()
        wait_until(lambda: client.get("/api/models").status_code == 401, 20, "keys are required")
        mine = {"port": port, "api_key": secret}
        user = key(home, "create", "ann", **mine).strip()
        wait_until(lambda: status(client, user) == 200, 20, "the new key")
        key(home, "update", "ann", "--disable", **mine)
        wait_until(lambda: status(client, user) == 401, 20, "the key is disabled")
        key(home, "update", "ann", "--enable", **mine)
        wait_until(lambda: status(client, user) == 200, 20, "the key is enabled")
        rotated = key(home, "rotate", "ann", **mine).strip()
        wait_until(lambda: status(client, rotated) == 200, 20, "the rotated key")
        assert status(client, user) == 401
        done = key(home, "revoke", "ann", **mine)
        assert done == "Revoked ann; servers refuse it within 2 seconds\n"
        wait_until(lambda: status(client, rotated) == 401, 20, "the key is revoked")


def test_a_command_next_to_the_server_uses_its_admin_key(engine: Engine, home: Path) -> None:
    file = home / "admin-key"
    file.write_text(f"{ADMIN}\n")
    with serving(home, admin_key_file=file) as server:
        port = port_of(server)
        assert "asks for a key" in failure(home, "create", "ann", port=port)
        key(home, "create", "ann", port=port, admin_key_file=file)
        key(home, "create", "bob", port=port, admin_key=ADMIN)
        unreadable = myllm(home, "key", "list", port=port, admin_key_file=home / "none")
    assert (unreadable.returncode, unreadable.stdout) == (2, "")
    assert unreadable.stderr.startswith("error: MYLLM_ADMIN_KEY_FILE ")


def test_what_the_commands_print(engine: Engine, home: Path) -> None:
    with serving(home) as server:
        _prints(home, port_of(server))


def _prints(home: Path, port: int) -> None:
    root = json.loads(key(home, "create", "root", "--role", "admin", "--json", port=port))
    assert root["key"].startswith("sk-")
    mine = {"port": port, "api_key": root["key"]}
    options = ("--models", "demo,lama*", "--rpm", "60", "--tpm", "9000", "--expires", "2100-01-31")
    made = myllm(home, "key", "create", "Zoë", *options, "--max-priority", "3", **mine)
    assert made.stderr.startswith("warning: No model here matches 'lama*'\n")
    table = key(home, "list", **mine).splitlines()
    headings = ["NAME", "ROLE", "MODELS", "LIMITS", "CREATED", "LAST USED", "EXPIRES", "STATE"]
    assert " ".join(table[0].split()) == " ".join(headings)
    assert table[1].split("  ")[0] == "Zoë"
    assert "demo, lama*  60 requests/min, 9000 tokens/min, priority 3" in table[1]
    assert table[1].split()[-3:] == ["2100-01-31", "00:00", "active"]
    listed = json.loads(key(home, "list", "--json", **mine))
    assert [each["name"] for each in listed] == ["Zoë", "root"]
    assert json.loads(key(home, "show", "Zoë", "--json", **mine)) == listed[0]
    assert "limits     60 requests/min" in key(home, "show", "Zoë", **mine)
    changed = key(
        home, "update", "Zoë", "--rpm", "none", "--models", "*", "--expires", "never", **mine
    )
    assert changed == "Changed Zoë; servers follow within 2 seconds\n"
    after = json.loads(key(home, "show", "Zoë", "--json", **mine))
    wanted = {"requests_per_minute": None, "models": [], "expires_at": None}
    assert after == listed[0] | wanted


def test_what_the_commands_refuse(engine: Engine, home: Path) -> None:
    with serving(home) as server:
        port = port_of(server)
        secret = key(home, "create", "root", "--role", "admin", port=port).strip()
        _refuse(home, {"port": port, "api_key": secret})


def _refuse(home: Path, mine: dict[str, object]) -> None:
    for arguments, told in (
        (("create", "root"), "There is a key 'root' already"),
        (("show", "eve"), "There is no key 'eve'\n"),
        (("show", "../models"), "a key's name is 1 to 64 letters"),
        (("create", "a b"), "a key's name is 1 to 64 letters"),
        (("create", "ann", "--expires", "2020-01-31"), "expires must be in the future"),
        (("create", "ann", "--models", "qwen["), "'qwen[' is no pattern of model names"),
        (("revoke", "root"), "This is the last admin key that works"),
    ):
        assert failure(home, *arguments, **mine).startswith(f"error: {told}")
    for usage in (
        ("create", "ann", "--role", "root"),
        ("create", "ann", "--rpm", "-5"),
        ("create", "ann", "--max-priority", "11"),
        ("update", "root"),
    ):
        assert myllm(home, "key", *usage, **mine).returncode == 2
    assert [each["name"] for each in json.loads(key(home, "list", "--json", **mine))] == ["root"]
    assert key(home, "revoke", "root", "--force", **mine).startswith("Revoked root")


def test_revoking_asks_on_a_terminal(home: Path) -> None:
    key(home, "create", "root", "--role", "admin")
    key(home, "create", "ann")
    for typed, printed, left in ((b"n\n", b"Kept ann", 2), (b"y\n", b"Revoked ann", 1)):
        master, terminal = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "myllm", "key", "revoke", "ann"],
            env=environment(home, port=1), cwd=home,
            stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        os.close(terminal)
        os.write(master, typed)
        output, _ = process.communicate(timeout=60)
        os.close(master)
        assert printed in output
        assert len(json.loads(key(home, "list", "--json"))) == left


def test_an_old_keys_file_is_imported_and_its_users_keep_their_keys(
    engine: Engine, home: Path
) -> None:
    def line(name: str, secret: str) -> str:
        return f"{name}:{hashlib.sha256(secret.encode()).hexdigest()}\n"

    file = home / "keys"
    file.write_text("# ours\n" + line("ann", "secret-a") + line("bob", "secret-b"))
    refused = failure(home, "import", str(file))
    assert refused.startswith("error: not imported: ann, bob: The first key must be an admin's")
    with serving(home, admin_key=ADMIN) as server, server.client() as client:
        mine = {"port": port_of(server), "api_key": ADMIN}
        assert key(home, "import", str(file), **mine) == "ann: imported\nbob: imported\n"
        wait_until(lambda: status(client, "secret-b") == 200, 20, "the imported keys")
        assert status(client, "secret-a", "/api/keys") == 403
        file.write_text(line("ann", "another") + line("bob", "secret-b") + line("eve", "secret-e"))
        again = myllm(home, "key", "import", str(file), "--role", "admin", **mine)
        assert (again.returncode, again.stdout) == (1, "bob: exists already\neve: imported\n")
        assert again.stderr.startswith("error: not imported: ann: There is a key 'ann' already")
        wait_until(lambda: status(client, "secret-e", "/api/keys") == 200, 20, "eve's key")
    assert failure(home, "import", str(home / "none")).startswith("error: the keys file")
