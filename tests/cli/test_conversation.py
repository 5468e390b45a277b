"""`myllm run` as a conversation on a real terminal: what is typed, pasted and commanded."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.api.credentials import port_of
from tests.cli.terminal import END_OF_PASTE, PASTE, UP, Terminal, terminal
from tests.serving import Serving, wait_until

FRANCE = "What is the capital of France?"
PARIS = "The capital of France is Paris."
LONG = ("--max-tokens", "2000", "--temperature", "2", "--top-k", "0", "--top-p", "1")


@pytest.fixture(autouse=True)
def _compiled(engine: Engine) -> None:
    """All of these need the engine."""


@pytest.fixture
def talked(server: Serving, api: httpx.Client) -> Iterator[httpx.Client]:
    """The API of a server without conversations; those of the test are removed after it."""
    yield api
    for each in api.get("/api/sessions").json()["sessions"]:
        api.delete(f"/api/sessions/{each['id']}")


def said(api: httpx.Client) -> list[tuple[str, str]]:
    """Role and text of the messages in the only conversation, without superseded ones."""
    [session] = api.get("/api/sessions").json()["sessions"]
    messages = api.get(f"/api/sessions/{session['id']}").json()["messages"]
    return [(each["role"], each["content"]) for each in messages if not each["superseded"]]


@contextmanager
def talking(server: Serving, *more: str, kind: str = "xterm") -> Iterator[Terminal]:
    """A conversation with the demo model, which always picks the likeliest token."""
    line = ("run", "demo", "--temperature", "0", *more)
    with terminal(server.home, *line, kind=kind, port=port_of(server)) as talk:
        yield talk


def leave(talk: Terminal) -> None:
    talk.say("/exit")
    assert talk.process.wait(60) == 0


def test_a_plain_terminal(home: Path) -> None:
    """Without a server, on a terminal that knows only lines."""
    with terminal(home, "run", "demo", "--temperature", "0", kind="dumb") as talk:
        talk.say("My name is Tobias.")
        talk.until("Tobias.\r\n")
        talk.say('"""What is')
        talk.until("... ")
        talk.type('my name?"""\r')
        talk.say("/undo")
        talk.until("Taken back: What is my name?")
        talk.say("What is my name?")
        talk.until("Your name is Tobias.")
        talk.say("/clear")
        talk.until("A new conversation begins")
        talk.ready()
        talk.at_a_persons_pace()
        talk.type("\x04")
        assert talk.process.wait(60) == 0


def test_pasted_lines_are_one_message(server: Serving, talked: httpx.Client) -> None:
    with talking(server) as talk:
        talk.ready()
        talk.type(f"{PASTE}My name\ris Marlo.{END_OF_PASTE}")
        time.sleep(0.5)
        talk.type("\r")
        leave(talk)
    assert said(talked)[0] == ("user", "My name\nis Marlo.")
    assert len(said(talked)) == 2


def test_a_block_ends_with_its_quotes(server: Serving, talked: httpx.Client) -> None:
    with talking(server) as talk:
        talk.say('"""one')
        talk.until("...")
        talk.type('two\rthree"""\r')
        leave(talk)
    assert said(talked)[0] == ("user", "one\ntwo\nthree")
    assert len(said(talked)) == 2


def test_arrow_keys_bring_back_earlier_messages_also_of_earlier_runs(
    server: Serving, talked: httpx.Client
) -> None:
    history = server.home / "state" / "run-history"
    history.unlink(missing_ok=True)
    for _ in range(2):
        with talking(server, "--session", "again") as talk:
            if not history.exists():
                talk.say(FRANCE)
                talk.until(PARIS)
            talk.say(UP)
            talk.until(PARIS)
            talk.ready()
            talk.type("\x04")
            assert talk.process.wait(60) == 0
    assert [text for role, text in said(talked) if role == "user"] == [FRANCE] * 3
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


def test_another_answer_and_a_turn_taken_back(server: Serving, talked: httpx.Client) -> None:
    with talking(server) as talk:
        talk.say("/regenerate")
        talk.until("there is no question to answer again")
        talk.say("/undo")
        talk.until("there is no turn to take back")
        talk.say("My name is Marlo.")
        talk.until("meet you")
        talk.say("My name is Quentin.")
        talk.until("meet you")
        talk.say("/undo")
        talk.until("Taken back: My name is Quentin.")
        assert len(said(talked)) == 2
        talk.say("What is my name?")
        talk.until("Your name is Marlo.")
        talk.say("/regenerate")
        talk.until("Your name is Marlo.")
        talk.ready()
        assert [text for _, text in said(talked)][2:] == ["What is my name?", "Your name is Marlo."]
        talk.type("/exit\r")
        talk.until("Continue with: myllm run demo --session ")
        assert talk.process.wait(60) == 0
    [session] = talked.get("/api/sessions").json()["sessions"]
    messages = talked.get(f"/api/sessions/{session['id']}").json()["messages"]
    assert [each["superseded"] for each in messages] == [False] * 2 + [True] * 2 + [
        False, True, False,
    ]  # fmt: skip


def test_settings_are_changed_and_shown(server: Serving, talked: httpx.Client) -> None:
    with talking(server) as talk:
        talk.say("/set temperature 0.5")
        talk.until("temperature        0.5")
        talk.say("/set temperature 5")
        talk.until("temperature must be between 0.0 and 2.0")
        talk.say("/set temprature 1")
        talk.until("did you mean 'temperature'?")
        talk.say("/set max_tokens 1")
        talk.until("max_tokens         1\r\n")
        talk.say("/set verbose")
        talk.until("verbose            on")
        talk.say("/system Be brief.")
        talk.until("system: Be brief.")
        talk.say("/show")
        shown = talk.until("verbose            on")
        assert "context size       2048" in shown.replace("\x1b[0m", "")
        assert "temperature        0.5" in shown
        assert "system             Be brief." in shown
        talk.say(FRANCE)
        talk.until("answer: 1 tokens")
        talk.say("/set max_tokens default")
        talk.until("max_tokens         default")
        leave(talk)
    assert said(talked)[0] == ("system", "Be brief.")


def test_what_begins_with_a_slash(server: Serving, talked: httpx.Client) -> None:
    with talking(server) as talk:
        talk.say("/hepl")
        talk.until("unknown command /hepl; did you mean /help?")
        talk.say("/help")
        shown = talk.until("Ctrl+C stops an answer.")
        for command in ("/set", "/show", "/system", "/save", "/regenerate", "/undo", "/clear"):
            assert command in shown
        talk.say("/etc/passwd is what?")
        talk.ready()
        talk.type(" /etc is what?\r")
        leave(talk)
    asked = [text for role, text in said(talked) if role == "user"]
    assert asked == ["/etc/passwd is what?", "/etc is what?"]


def test_a_conversation_is_saved(server: Serving, talked: httpx.Client, tmp_path: Path) -> None:
    with talking(server) as talk:
        talk.say(f"/save {tmp_path}/early.md")
        talk.until("nothing has been said yet")
        talk.say(FRANCE)
        talk.until(PARIS)
        for name in ("talk.md", "talk.json", "talk.md"):
            talk.say(f"/save {tmp_path}/{name}")
            talk.until("Saved as ")
        (tmp_path / "mine.md").write_text("mine")
        talk.say(f"/save {tmp_path}/mine.md")
        talk.until("exists already")
        talk.say(f"/save {tmp_path}/nowhere/talk.md")
        talk.until("cannot be written")
        leave(talk)
    assert sorted(os.listdir(tmp_path)) == ["mine.md", "talk.json", "talk.md"]
    assert PARIS in (tmp_path / "talk.md").read_text()
    told = json.loads((tmp_path / "talk.json").read_text())
    assert [each["content"] for each in told["messages"]] == [FRANCE, PARIS]
    assert (tmp_path / "mine.md").read_text() == "mine"


def test_going_on_shows_the_last_turns(server: Serving, talked: httpx.Client) -> None:
    names = ("Marlo", "Quentin", "Tobias")
    for name in names:
        body = {"model": "demo", "messages": [{"role": "user", "content": f"My name is {name}."}]}
        posted = body | {"session_id": "old", "stream": False}
        talked.post("/api/chat", json=posted).raise_for_status()
    with talking(server, "--continue") as talk:
        shown = talk.until("(1 earlier turns)") + talk.until(">>> My name is Tobias.")
        assert ">>> My name is Quentin." in shown
        assert ">>> My name is Marlo." not in shown
        talk.say("What is my name?")
        talk.until("Your name is Tobias.")
        leave(talk)


def test_ctrl_c_once_stops_the_answer_and_twice_leaves(home: Path, big_model: Path) -> None:
    models = ("--models-dir", str(big_model.parent.parent))
    with terminal(home, *models, "run", "big", *LONG) as talk:
        talk.say("Go on")
        talk.until("\r\n")
        time.sleep(4)
        talk.type("\x03")
        talk.until("(stopped)")
        talk.ready()
        talk.type("\x03")
        talk.until("Ctrl+C again")
        talk.ready()
        talk.type("\x03")
        assert talk.process.wait(60) == 130


def test_a_question_that_was_stopped_is_asked_again(server: Serving, talked: httpx.Client) -> None:
    talked.post("/api/models/demo/load").raise_for_status()
    [engine] = server.engines()
    engine.suspend()
    try:
        with talking(server) as talk:
            talk.say(FRANCE)
            talk.until("waiting for demo")
            wait_until(lambda: talked.get("/health").json()["active"] == 1, 30, "the question")
            talk.type("\x03")
            talk.until("(stopped)")
            engine.resume()
            talk.say("/regenerate")
            talk.until(PARIS)
            leave(talk)
    finally:
        engine.resume()
    assert said(talked) == [("user", FRANCE), ("assistant", PARIS)]
