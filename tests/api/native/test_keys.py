"""`/api/keys`: an admin creates, changes and revokes keys while the server runs."""

from __future__ import annotations

import hashlib
import json
import time
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from myllm.engine.engine import Engine
from myllm.sessions.keys import Key, KeyStore, hash_of
from myllm.sessions.tables import keys as table
from tests.api.credentials import bearer
from tests.api.events import detail
from tests.keys import change_keys
from tests.serving import Serving, serving, short_home, wait_until

ADMIN = "admin-key-0123456789"
FOLLOW_S = 20.0
"""Ten times as long as a server takes to follow a change: answers to wrong keys are delayed."""


@pytest.fixture(scope="module")
def managed(engine: Engine) -> Iterator[Serving]:
    with short_home() as home, serving(home, admin_key=ADMIN) as running:
        yield running


@pytest.fixture
def admin(managed: Serving) -> Iterator[httpx.Client]:
    """A client with the admin key of the settings; all other keys are revoked at the end."""
    with managed.client() as client:
        client.headers.update(bearer(ADMIN))
        yield client
        for key in client.get("/api/keys", params={"limit": 500}).json()["keys"]:
            client.delete(f"/api/keys/{quote(key['name'])}").raise_for_status()


def made(admin: httpx.Client, name: str, **fields: Any) -> dict[str, Any]:
    answer = admin.post("/api/keys", json={"name": name, **fields})
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


def status(client: httpx.Client, key: str, path: str = "/api/models") -> int:
    return client.get(path, headers=bearer(key)).status_code


def follows(client: httpx.Client, key: str, wanted: int, path: str = "/api/models") -> None:
    """Wait until a request with `key` is answered with the status `wanted`."""
    wait_until(lambda: status(client, key, path) == wanted, FOLLOW_S, f"{path}: {wanted}")


def test_a_new_key_works_at_once_and_is_shown_once(managed: Serving, admin: httpx.Client) -> None:
    created = admin.post("/api/keys", json={"name": "ann", "models": ["demo"]})
    assert created.headers["cache-control"] == "no-store"
    secret = created.json()["key"]
    follows(admin, secret, 200)
    assert status(admin, secret, "/api/keys") == 403
    shown = [admin.get(path).text for path in ("/api/keys", "/api/keys/ann")]
    changed = admin.patch("/api/keys/ann", json={"disabled": False}).text
    for text in (*shown, changed, managed.log):
        assert "ann" in text
        assert secret not in text
        assert hash_of(secret).hex() not in text


def test_what_a_key_may_do_is_shown_as_it_was_given(admin: httpx.Client) -> None:
    rules = {
        "role": "admin",
        "models": ["demo"],
        "requests_per_minute": 60,
        "tokens_per_minute": 100_000,
        "concurrent_requests": 2,
        "max_priority": -3,
        "expires_at": "2100-01-31T00:00:00.000+00:00",
        "disabled": True,
    }
    made(admin, "ann", **rules)
    shown = admin.get("/api/keys/ann").json()
    assert shown | rules == shown
    assert (shown["state"], shown["last_used_at"]) == ("disabled", None)
    local = made(admin, "bob", expires_at="2100-01-31T01:00:00+01:00")
    assert (local["expires_at"], local["state"]) == (rules["expires_at"], "active")


def test_only_the_given_fields_change(admin: httpx.Client) -> None:
    made(admin, "ann", requests_per_minute=60, expires_at="2100-01-01T00:00:00Z")
    changed = admin.patch("/api/keys/ann", json={"expires_at": None, "role": "metrics"}).json()
    wanted = {"expires_at": None, "role": "metrics", "requests_per_minute": 60}
    assert changed | wanted == changed
    assert changed == admin.get("/api/keys/ann").json() | {"warnings": []}


def test_a_change_takes_effect_while_the_server_runs(admin: httpx.Client) -> None:
    secret = made(admin, "ann")["key"]
    follows(admin, secret, 200)
    admin.patch("/api/keys/ann", json={"disabled": True}).raise_for_status()
    follows(admin, secret, 401)
    admin.patch("/api/keys/ann", json={"disabled": False, "role": "admin"}).raise_for_status()
    follows(admin, secret, 200, "/api/keys")
    rotated = admin.post("/api/keys/ann/rotate").json()["key"]
    follows(admin, rotated, 200, "/api/keys")
    assert status(admin, secret) == 401
    assert admin.delete("/api/keys/ann").json()["message"] == "Key 'ann' revoked"
    follows(admin, rotated, 401)
    assert admin.get("/api/keys/ann").status_code == 404


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "name is required"),
        ({"name": "a b"}, "a key's name is 1 to 64 letters"),
        ({"name": "a\u202eb"}, "a key's name is 1 to 64 letters"),
        ({"name": "x" * 100_000}, "name must have 1024 characters at most"),
        ({"name": "a", "role": "root"}, "role must be one of 'user', 'admin' or 'metrics'"),
        ({"name": "a", "models": ["qwen["]}, "'qwen[' is no pattern of model names"),
        ({"name": "a", "models": ["m"] * 257}, "models must have 256 entries at most"),
        ({"name": "a", "requests_per_minute": -1}, "requests_per_minute must be 1 to"),
        ({"name": "a", "tokens_per_minute": 0}, "tokens_per_minute must be 1 to"),
        ({"name": "a", "concurrent_requests": 1.5}, "concurrent_requests must be a whole number"),
        ({"name": "a", "max_priority": 11}, "max_priority must be -10 to 10"),
        ({"name": "a", "expires_at": "2020-01-01T00:00:00Z"}, "expires must be in the future"),
        ({"name": "a", "expires_at": "2100-01-01"}, "expires_at must be a time with its zone"),
        ({"name": "a", "expires_at": "0001-01-01T00:00:00+23:59"}, "expires must be in the future"),
        ({"name": "a", "expires_at": 5}, "expires_at must be a time with its zone"),
        ({"name": "a", "rpm": 60}, "Unknown field 'rpm'; the fields are name, "),
        ({"name": "a", "sha256": "00"}, "sha256 is wrong"),
        ([], "The body must be a JSON object"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused(admin: httpx.Client, body: object, told: str) -> None:
    assert told in detail(admin.post("/api/keys", json=body), 400)
    assert admin.get("/api/keys").json() == {"keys": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"role": None}, "role must not be null"),
        ({"models": None}, "models must not be null"),
        ({"disabled": None}, "disabled must not be null"),
        ({"role": "root"}, "role must be one of 'user', 'admin' or 'metrics'"),
        ({"requests_per_minute": -1}, "requests_per_minute must be 1 to"),
        ({"name": "eve"}, "Unknown field 'name'"),
        ({"key": "mine"}, "Unknown field 'key'"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(
    admin: httpx.Client, changes: dict[str, Any], told: str
) -> None:
    made(admin, "ann")
    before = admin.get("/api/keys/ann").json()
    assert told in detail(admin.patch("/api/keys/ann", json=changes), 400)
    assert admin.get("/api/keys/ann").json() == before


def test_a_key_that_does_not_exist(admin: httpx.Client) -> None:
    for answer in (
        admin.get("/api/keys/eve"),
        admin.patch("/api/keys/eve", json={"disabled": True}),
        admin.post("/api/keys/eve/rotate"),
        admin.delete("/api/keys/eve"),
    ):
        assert detail(answer, 404) == "There is no key 'eve'"


def test_names_of_any_script(admin: httpx.Client, managed: Serving) -> None:
    names = ["Zoë", "anna.b-c_d@example.com", "हिन्दी", "李小龍"]
    secrets = [made(admin, unicodedata.normalize("NFD", name))["key"] for name in names]
    for secret in secrets:
        follows(admin, secret, 200)
    for name in names:
        assert admin.get(f"/api/keys/{quote(name)}").json()["name"] == name
    assert [key["name"] for key in admin.get("/api/keys").json()["keys"]] == names
    lines = [json.loads(line) for line in managed.log.splitlines()]
    logged = [line["key"] for line in lines if line["event"] == "API key created"]
    assert logged[-4:] == names


def test_of_admins_who_create_one_key_at_once_one_succeeds(admin: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: admin.post("/api/keys", json={"name": "ann"}), range(8)))
    assert sorted(answer.status_code for answer in answers) == [201, *[409] * 7]
    [secret] = [answer.json()["key"] for answer in answers if answer.status_code == 201]
    follows(admin, secret, 200)


def test_admins_who_change_different_fields_at_once_keep_both(admin: httpx.Client) -> None:
    made(admin, "ann")
    changes = [{"requests_per_minute": n} for n in range(1, 9)]
    changes += [{"tokens_per_minute": n} for n in range(1, 9)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda each: admin.patch("/api/keys/ann", json=each), changes))
    assert {answer.status_code for answer in answers} == {200}
    shown = admin.get("/api/keys/ann").json()
    assert None not in (shown["requests_per_minute"], shown["tokens_per_minute"])


def test_patterns_that_match_nothing_are_warned_about(admin: httpx.Client) -> None:
    created = made(admin, "ann", models=["demo", "de*", "lama*"])
    assert created["warnings"] == ["No model here matches 'lama*'"]
    assert admin.patch("/api/keys/ann", json={"disabled": True}).json()["warnings"] == []
    changed = admin.patch("/api/keys/ann", json={"models": ["nothing"]}).json()
    assert changed["warnings"] == ["No model here matches 'nothing'"]


def test_a_key_that_exists_elsewhere_is_stored_by_its_hash(admin: httpx.Client) -> None:
    mine, other = (hashlib.sha256(text).hexdigest() for text in (b"mine", b"other"))
    created = made(admin, "ann", sha256=mine.upper())
    assert created["key"] is None
    follows(admin, "mine", 200)
    again = admin.post("/api/keys", json={"name": "ann", "sha256": mine})
    assert (again.status_code, again.json()["name"]) == (200, "ann")
    for name, sha256 in (("ann", other), ("bob", mine)):
        assert admin.post("/api/keys", json={"name": name, "sha256": sha256}).status_code == 409
    assert [key["name"] for key in admin.get("/api/keys").json()["keys"]] == ["ann"]


def test_users_and_strangers_manage_no_keys(admin: httpx.Client, managed: Serving) -> None:
    user = made(admin, "ann")["key"]
    metrics = made(admin, "prometheus", role="metrics")["key"]
    follows(admin, user, 200)
    follows(admin, metrics, 403)
    requests: list[tuple[str, str, dict[str, Any] | None]] = [
        ("GET", "/api/keys", None),
        ("POST", "/api/keys", {"name": "eve", "role": "admin"}),
        ("GET", "/api/keys/ann", None),
        ("PATCH", "/api/keys/ann", {"role": "admin"}),
        ("POST", "/api/keys/ann/rotate", None),
        ("DELETE", "/api/keys/ann", None),
    ]
    with managed.client() as door:
        for headers, wanted in ((bearer(user), 403), (bearer(metrics), 403), ({}, 401)):
            for method, path, body in requests:
                answer = door.request(method, path, json=body, headers=headers)
                assert answer.status_code == wanted, (method, path, answer.text)
    names = [key["name"] for key in admin.get("/api/keys").json()["keys"]]
    assert names == ["ann", "prometheus"]


def test_ten_thousand_keys_are_listed_page_by_page(engine: Engine, home: Path) -> None:
    names = [f"key-{number:05}" for number in range(10_000)]
    rows = [vars(Key(name=name, sha256=hash_of(name), created=time.time())) for name in names]

    async def store_all(keys: KeyStore) -> None:
        database = await keys._database()
        await database.write(lambda connection: connection.execute(table.insert(), rows))

    change_keys(home, store_all)
    # Leaving the block fails if the event loop was blocked meanwhile.
    with serving(home, admin_key=ADMIN) as server, server.client() as client:
        client.headers.update(bearer(ADMIN))
        follows(client, "key-09999", 200)
        found: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            query = {"limit": "500", "cursor": cursor}
            page = client.get("/api/keys", params=query).json()
            found += [key["name"] for key in page["keys"]]
            cursor = page["next_cursor"]
        assert found == names
        first = client.get("/api/keys", params={"limit": 3}).json()
        assert (len(first["keys"]), first["next_cursor"]) == (3, "key-00002")
        client.delete("/api/keys/key-09999").raise_for_status()
        follows(client, "key-09999", 401)


def test_the_last_admin_is_kept_unless_the_change_is_forced(engine: Engine, home: Path) -> None:
    with serving(home) as server, server.client() as client:
        refused = detail(client.post("/api/keys", json={"name": "ann"}), 409)
        assert refused.startswith("The first key must be an admin's")
        client.headers.update(bearer(made(client, "root", role="admin")["key"]))
        follows(client, "none", 401)
        made(client, "ann")
        for answer in (
            client.delete("/api/keys/root"),
            client.patch("/api/keys/root", json={"role": "user"}),
            client.patch("/api/keys/root", json={"disabled": True}),
        ):
            assert detail(answer, 409).startswith("This is the last admin key that works")
        expiring = {"expires_at": "2100-01-01T00:00:00Z"}
        answer = client.patch("/api/keys/root", json=expiring)
        assert detail(answer, 409).startswith("No other admin key works as long as this one")
        client.patch("/api/keys/root", json=expiring, params={"force": True}).raise_for_status()
        forced = client.patch("/api/keys/root", json={"role": "user"}, params={"force": True})
        assert forced.json()["role"] == "user"
