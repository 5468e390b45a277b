"""`myllm sessions`, with a server and without one, and continuing a conversation."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from myllm.cli.session_api import Api
from myllm.engine.engine import Engine
from myllm.errors import InvalidRequest
from tests.serving import environment, serving


def myllm(home: Path, *arguments: str, port: int = 1) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "myllm", *arguments],
        env=environment(home, port=port), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def output(home: Path, *arguments: str, port: int = 1) -> str:
    done = myllm(home, *arguments, port=port)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def told(engine: Engine, home: Path) -> Path:
    """A home with one conversation, `s`."""
    asked = output(home, "run", "demo", "My name is Marlo.", "--session", "s", "--temperature", "0")
    assert "Marlo" in asked
    return home


def test_a_conversation_is_continued(told: Path) -> None:
    question = ("run", "demo", "What is my name?", "--temperature", "0")
    assert output(told, *question, "--session", "s") == "Your name is Marlo.\n"
    assert output(told, *question, "--continue") == "Your name is Marlo.\n"
    both = myllm(told, *question, "--continue", "--session", "s")
    assert both.returncode == 2


def test_no_conversation_to_continue(engine: Engine, home: Path) -> None:
    done = myllm(home, "run", "demo", "hello", "--continue")
    assert (done.returncode, "no conversation with 'demo'" in done.stderr) == (1, True)


@pytest.mark.more
def test_without_a_server(told: Path) -> None:
    heading, row = output(told, "sessions", "list").splitlines()
    assert heading.split() == ["ID", "MODEL", "MESSAGES", "CHANGED", "TITLE"]
    assert row.startswith("s   demo   2 ")
    assert row.endswith("ago  My name is Marlo.")
    shown = output(told, "sessions", "show", "s")
    assert shown.startswith("My name is Marlo.  (demo, ")
    assert "\nuser:\nMy name is Marlo.\n" in shown
    assert json.loads(output(told, "sessions", "show", "s", "--json"))["id"] == "s"
    assert output(told, "sessions", "list", "--search", "nothing", "--json") == "[]\n"


def test_with_a_server(told: Path) -> None:
    with serving(told) as server:
        port = int(server.url.rsplit(":", 1)[1])
        [listed] = json.loads(output(told, "sessions", "list", "--json", port=port))
        assert listed["id"] == "s"
        assert output(told, "sessions", "rm", "s", port=port) == "Session 's' removed\n"
        gone = myllm(told, "sessions", "show", "s", port=port)
        assert (gone.returncode, gone.stderr) == (1, "error: Session 's' not found\n")


def stored(home: Path, port: int, *ids: str) -> None:
    """Import a session under each of `ids`."""
    for session_id in ids:
        file = home / "one.json"
        said = [{"role": "user", "content": f"This is {session_id}."}]
        whole = {"version": 1, "id": session_id, "model": "demo", "title": f"[b]{session_id}"}
        file.write_text(json.dumps(whole | {"messages": said}))
        output(home, "sessions", "import", str(file), port=port)


def test_the_beginning_of_an_id_is_enough(engine: Engine, home: Path) -> None:
    with serving(home) as server:
        port = int(server.url.rsplit(":", 1)[1])
        stored(home, port, "trip-one", "trip-two", "trip", "other-1")

        def shown(session_id: str) -> str:
            return str(json.loads(output(home, *show, session_id, "--json", port=port))["id"])

        show = ("sessions", "show")
        assert shown("trip-o") == "trip-one"
        assert shown("trip") == "trip", "an id itself wins"
        several = myllm(home, *show, "trip-", port=port)
        assert (several.returncode, several.stdout) == (1, "")
        assert several.stderr.splitlines() == [
            "error: the ids of 2 sessions begin with 'trip-'; give more of it:",
            "  trip-two  [b]trip-two",
            "  trip-one  [b]trip-one",
        ]
        assert myllm(home, *show, "oth", port=port).stderr == "error: Session 'oth' not found\n"
        assert "This is other-1." in output(home, "sessions", "export", "othe", port=port)
        gone = myllm(home, "sessions", "rm", "othe", "trip-", "trip-two", port=port)
        assert gone.stdout == "Session 'other-1' removed\nSession 'trip-two' removed\n"
        assert gone.stderr.startswith("error: the ids of 2 sessions begin with 'trip-'")
    listed = json.loads(output(home, "sessions", "list", "--json"))
    assert {each["id"] for each in listed} == {"trip", "trip-one"}


def test_an_id_is_looked_for_on_every_page(home: Path) -> None:
    pages = [
        {"sessions": [{"id": "abcd-1", "title": "one"}], "next_cursor": "more"},
        {"sessions": [{"id": "abcd-2", "title": "two"}], "next_cursor": None},
    ]

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/sessions":
            return httpx.Response(200, json=pages["cursor" in request.url.params])
        return httpx.Response(404, json={"detail": "not found"})

    client = httpx.Client(transport=httpx.MockTransport(answer), base_url="http://myllm")
    api = Api(client)
    with pytest.raises(InvalidRequest, match="the ids of 2 sessions begin with 'abcd'"):
        api.of_one("abcd", lambda one: api.get(f"/api/sessions/{one}"))


def test_an_id_never_names_another_route(told: Path) -> None:
    with serving(told) as server:
        port = int(server.url.rsplit(":", 1)[1])
        for command in (("rm",), ("show",), ("export",)):
            done = myllm(told, "sessions", *command, "../models/demo", port=port)
            assert done.returncode == 1
            assert done.stderr.startswith("error: session_id must be 1 to 128 characters")
        assert "DELETE" not in server.log


@pytest.mark.parametrize(("form", "name"), [("json", "s.json"), ("markdown", "s.md")])
@pytest.mark.more
def test_an_export_can_be_imported(told: Path, form: str, name: str) -> None:
    file = told / name
    output(told, "sessions", "export", "s", "--format", form, "--output", str(file))
    output(told, "sessions", "rm", "s")
    assert (
        output(told, "sessions", "import", str(file)) == "Session 's' stored: My name is Marlo.\n"
    )
    again = myllm(told, "sessions", "import", str(file))
    assert again.stderr == "error: Session 's' exists already\n"
    output(told, "sessions", "import", str(file), "--session-id", "t")
    assert len(json.loads(output(told, "sessions", "list", "--json"))) == 2


def test_a_store_that_cannot_be_used_is_one_clear_line(engine: Engine, home: Path) -> None:
    (home / "data").mkdir()
    database = home / "data" / "myllm.db"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('9999')")
    for command in (("sessions", "list"), ("serve",), ("run", "demo", "hello")):
        done = myllm(home, *command, port=0 if command == ("serve",) else 1)
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: the store of conversations {database} was made by")
        assert done.stderr.count("\n") == 1
