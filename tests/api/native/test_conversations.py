"""A conversation keeps its KV cache, and its answers, whatever happens to its engine between turns.

The demo model copies a name from the beginning of its context. What is not worth saving (the
engine reads it again in 20 ms) is kept apart by long first messages.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.serving import Serving, serving, wait_until

_LONG = "MyLLM keeps conversations and their memory. " * 40


def say(api: httpx.Client, session: str, text: str, **fields: Any) -> dict[str, Any]:
    """One turn at temperature 0."""
    answer = api.post(
        "/api/chat",
        json={
            "model": "demo",
            "messages": [{"role": "user", "content": text}],
            "session_id": session,
            "stream": False,
            "options": {"temperature": 0, "repeat_penalty": 1.0, "max_tokens": 60},
        }
        | fields,
    )
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def introduce(api: httpx.Client, session: str, name: str) -> dict[str, Any]:
    """Return a first turn that is long enough for its KV state to be saved."""
    say(api, session, f"My name is {name}.")
    return say(api, session, _LONG)


def asks_name(api: httpx.Client, session: str) -> tuple[str, int, int]:
    """Return the answer, and how many tokens of its prompt the engine had to read."""
    answer = say(api, session, "What is my name?")
    usage = answer["usage"]
    unread = usage["prompt_tokens"] - usage["cached_tokens"]
    return answer["message"]["content"], usage["cached_tokens"], unread


def files(server: Serving) -> list[Path]:
    return sorted((server.home / "data" / "kv").glob("*.kv"))


def is_recorded(server: Serving, file: Path) -> bool:
    """Whether the store has a record of `file`, which is written a moment after the file."""
    with closing(sqlite3.connect(server.home / "data" / "myllm.db")) as store:
        query = "SELECT sha256 FROM kv_files WHERE name = ?"
        known = store.execute(query, (file.name,)).fetchone()
    return known == (hashlib.sha256(file.read_bytes()).hexdigest(),)


def wait_for_save(server: Serving) -> None:
    """Wait until the last turn is saved, some seconds after it; earlier ones may be already."""
    turn = time.time()
    wait_until(
        lambda: any(
            file.stat().st_mtime > turn and is_recorded(server, file) for file in files(server)
        ),
        60,
        "a save by itself",
    )


@pytest.fixture(scope="module")
def undisturbed(server: Serving) -> tuple[str, int, int]:
    """Return the answers of the same conversation without interruption."""
    with server.client() as api:
        introduce(api, "s", "Marlo")
        said = asks_name(api, "s")
    assert said[0] == "Your name is Marlo."
    assert said[2] < 20
    return said


def test_after_an_unload(undisturbed: tuple[str, int, int], home: Path) -> None:
    with serving(home) as server, server.client() as api:
        introduce(api, "s", "Marlo")
        assert api.post("/api/models/demo/unload").status_code == 200
        assert asks_name(api, "s") == undisturbed


def test_after_a_restart_of_the_server(undisturbed: tuple[str, int, int], home: Path) -> None:
    with serving(home) as server, server.client() as api:
        introduce(api, "s", "Marlo")
    assert server.process.returncode == 0
    with serving(home) as server, server.client() as api:
        assert asks_name(api, "s") == undisturbed


def test_after_an_eviction(undisturbed: tuple[str, int, int], home: Path) -> None:
    with serving(home, max_loaded_models=1) as server, server.client() as api:
        introduce(api, "s", "Marlo")
        embedded = api.post("/api/embeddings", json={"model": "demo", "input": "x"})
        assert embedded.status_code == 200
        [instance] = api.get("/api/instances").json()["instances"]
        assert instance["role"] == "embed"
        assert asks_name(api, "s") == undisturbed


def test_after_a_reload(undisturbed: tuple[str, int, int], home: Path) -> None:
    with serving(home) as server, server.client() as api:
        introduce(api, "s", "Marlo")
        [before] = server.engines()
        assert api.post("/api/models/demo/reload").status_code == 200
        wait_until(lambda: before not in server.engines(), 30, "the new engine alone")
        assert asks_name(api, "s") == undisturbed


def test_after_the_engine_was_killed(undisturbed: tuple[str, int, int], home: Path) -> None:
    with serving(home) as server, server.client() as api:
        introduce(api, "s", "Marlo")
        wait_for_save(server)
        [engine] = server.engines()
        engine.kill()
        assert asks_name(api, "s") == undisturbed


def test_after_the_server_was_killed(undisturbed: tuple[str, int, int], home: Path) -> None:
    with serving(home) as server, server.client() as api:
        introduce(api, "s", "Marlo")
        wait_for_save(server)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
    with serving(home) as server, server.client() as api:
        assert asks_name(api, "s") == undisturbed


def test_killed_before_anything_was_saved_only_costs_time(
    undisturbed: tuple[str, int, int], home: Path
) -> None:
    with serving(home) as server, server.client() as api:
        introduce(api, "s", "Marlo")
        for engine in server.engines():
            engine.kill()
        text, cached, _ = asks_name(api, "s")
        assert (text, cached) == (undisturbed[0], 0)


def test_others_have_the_slot_in_between(undisturbed: tuple[str, int, int], home: Path) -> None:
    with serving(home, slots=1) as server, server.client() as api:
        introduce(api, "s", "Marlo")
        introduce(api, "t", "Quentin")
        assert asks_name(api, "s") == undisturbed
        text, cached, _ = asks_name(api, "t")
        assert text == "Your name is Quentin."
        assert cached > 300


@pytest.mark.parametrize("damage", ["flipped", "truncated", "foreign", "gone"])
def test_a_damaged_file_is_dropped_and_the_history_read_anew(
    undisturbed: tuple[str, int, int], home: Path, damage: str
) -> None:
    with serving(home) as server, server.client() as api:
        introduce(api, "s", "Marlo")
        introduce(api, "other", "Quentin")
        api.post("/api/models/demo/unload")
        for file in files(server):
            harm(file, damage)
        text, cached, _ = asks_name(api, "s")
        assert (text, cached) == (undisturbed[0], 0)
        assert "damaged state of a conversation dropped" in server.log
        api.post("/api/models/demo/unload")
        assert asks_name(api, "s")[1] > undisturbed[1]


def harm(file: Path, damage: str) -> None:
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        content[-len(content) // 8] ^= 1
        file.write_bytes(content)
    elif damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "foreign":
        file.write_bytes(b"x" * len(content))
    else:
        file.unlink()


def test_files_are_private_and_do_not_name_their_owner(engine: Engine, home: Path) -> None:
    with serving(home) as server, server.client() as api:
        introduce(api, "secret-name", "Marlo")
        api.post("/api/models/demo/unload")
        [file] = files(server)
        assert "secret" not in file.name
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_they_are_bounded_and_the_least_recently_used_go_first(engine: Engine, home: Path) -> None:
    with serving(home, kv_cache_mb=4) as server, server.client() as api:
        for number in range(5):
            introduce(api, f"s{number}", _SYLLABLES[number])
        api.post("/api/models/demo/unload")
        assert 0 < sum(file.stat().st_size for file in files(server)) <= 4 * 2**20
        assert asks_name(api, "s4")[1] > 300
        assert asks_name(api, "s0")[1] < 300


def test_switched_off(engine: Engine, home: Path) -> None:
    with serving(home, kv_cache_mb=0) as server, server.client() as api:
        introduce(api, "s", "Marlo")
        [instance] = api.get("/api/instances").json()["instances"]
        assert instance["kv_restore"] == "switched off by MYLLM_KV_CACHE_MB=0"
        api.post("/api/models/demo/unload")
        assert asks_name(api, "s")[:2] == ("Your name is Marlo.", 0)
        assert asks_name(api, "s")[1] > 300
        assert files(server) == []


def test_files_go_when_it_is_switched_off(engine: Engine, home: Path) -> None:
    with serving(home) as server, server.client() as api:
        introduce(api, "s", "Marlo")
    assert len(files(server)) == 1
    with serving(home, kv_cache_mb=0) as server:
        wait_until(lambda: files(server) == [], 20, "no file")


def test_a_shared_beginning_is_read_once(engine: Engine, home: Path) -> None:
    system = {"role": "system", "content": _LONG}
    messages = [[system, {"role": "user", "content": f"{n}: What can you do?"}] for n in range(2)]
    with serving(home) as server, server.client() as api:
        say(api, "one", "", messages=messages[0])
        api.post("/api/models/demo/unload")
        second = say(api, "two", "", messages=messages[1])
        assert second["usage"]["cached_tokens"] > 300
        assert '"own":false' in server.log


@pytest.mark.more
def test_fifty_conversations_never_see_each_other(engine: Engine, home: Path) -> None:
    """Each conversation contains a name, and is asked for it while the others run."""
    names = [f"{first}{last}" for first in _SYLLABLES for last in _SYLLABLES][:50]
    with serving(home) as server, server.client() as api, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: introduce(api, f"c{n}", names[n]), range(50)))
        for _ in range(3):
            answers = list(pool.map(lambda n: asks_name(api, f"c{n}")[0], range(50)))
            heard = {n: [o for o in names if o in text] for n, text in enumerate(answers)}
            assert heard == {n: [name] for n, name in enumerate(names)}
        assert server.log.count("state of a conversation restored") > 100


_SYLLABLES = ("Bel", "Dor", "Fin", "Gar", "Hal", "Jor", "Kel", "Mar")
