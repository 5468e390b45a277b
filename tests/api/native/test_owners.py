"""Admins see the sessions of every key; other keys see their own alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.api.credentials import bearer
from tests.api.events import detail
from tests.keys import add_keys
from tests.serving import Serving, serving, short_home


@pytest.fixture(scope="module")
def shared(engine: Engine) -> Iterator[Serving]:
    """A server whose store has a session of its time without keys, of Ann, and of Bob."""
    with short_home() as home:
        with serving(home) as server, server.client() as keyless:
            imported(keyless, "old")
        add_keys(home, ann="ann", bob="bob")
        add_keys(home, "admin", root="root")
        with serving(home, admin_key="settings") as server, server.client() as client:
            for key in ("ann", "bob", "settings"):
                client.headers.update(bearer(key))
                imported(client, f"{key}-1")
            yield server


def imported(client: httpx.Client, session: str) -> None:
    document: dict[str, Any] = {"version": 1, "id": session, "model": "demo", "title": session}
    document["messages"] = [{"role": "user", "content": "Hello"}]
    answer = client.post("/api/sessions/import", json=document)
    assert answer.status_code == 201, answer.text


@pytest.fixture
def root(shared: Serving) -> Iterator[httpx.Client]:
    with shared.client() as client:
        client.headers.update(bearer("root"))
        yield client


@pytest.fixture
def ann(shared: Serving) -> Iterator[httpx.Client]:
    with shared.client() as client:
        client.headers.update(bearer("ann"))
        yield client


def listed(client: httpx.Client, **query: Any) -> list[str]:
    answer = client.get("/api/sessions", params=query)
    assert answer.status_code == 200, answer.text
    return [each["id"] for each in answer.json()["sessions"]]


def test_each_sees_its_own(root: httpx.Client, ann: httpx.Client) -> None:
    assert listed(root) == []
    assert listed(ann) == ["ann-1"]
    detail(ann.get("/api/sessions/bob-1"), 404)


def test_an_admin_sees_those_of_each_owner(root: httpx.Client) -> None:
    owners = {"ann": "ann-1", "bob": "bob-1", "(local)": "old", "(admin)": "settings-1"}
    for owner, session in owners.items():
        assert listed(root, owner=owner) == [session]
        shown = root.get(f"/api/sessions/{session}", params={"owner": owner}).json()
        assert shown["messages"][0]["content"] == "Hello"
    assert listed(root, owner="eve") == []


def test_an_admin_lists_all_in_pages(root: httpx.Client) -> None:
    first = root.get("/api/sessions", params={"owner": "*", "limit": 3}).json()
    following = {"owner": "*", "cursor": first["next_cursor"]}
    rest = root.get("/api/sessions", params=following).json()
    found = {each["id"]: each["owner"] for each in [*first["sessions"], *rest["sessions"]]}
    assert found == {"ann-1": "ann", "bob-1": "bob", "old": "(local)", "settings-1": "(admin)"}
    assert listed(root, owner="*", search="hello") == ["settings-1", "bob-1", "ann-1", "old"]


def test_an_admin_changes_another_s_session(root: httpx.Client, ann: httpx.Client) -> None:
    owner = {"owner": "ann"}
    assert root.post("/api/sessions/ann-1/fork", json={"session_id": "x"}, params=owner).is_success
    assert root.patch("/api/sessions/x", json={"title": "New"}, params=owner).is_success
    assert ann.get("/api/sessions/x").json()["title"] == "New"
    assert root.get("/api/sessions/x/export", params=owner).is_success
    assert root.delete("/api/sessions/x", params=owner).is_success
    assert listed(ann) == ["ann-1"]


@pytest.mark.parametrize("owner", ["bob", "ann", "(local)", "(admin)", "*", "no one"])
def test_another_key_names_no_owner(ann: httpx.Client, owner: str) -> None:
    for path in ("/api/sessions", "/api/sessions/bob-1"):
        assert "only an admin may" in detail(ann.get(path, params={"owner": owner}), 403)


@pytest.mark.parametrize("owner", ["*", "", "no one", "key:ann", "x" * 65])
def test_an_owner_that_no_key_can_be_is_refused(root: httpx.Client, owner: str) -> None:
    detail(root.get("/api/sessions/bob-1", params={"owner": owner}), 400)
