"""The keys file: its contents, how it is edited, and which files stop a server from starting."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import structlog.testing

from myllm.api.http.keys import Keys, added, parse, removed
from myllm.errors import Conflict, InvalidKeysFile, InvalidRequest, NotFound
from tests.serving import environment

pytestmark = pytest.mark.full  # a process for each command

FILE = Path("keys")
HASH = hashlib.sha256(b"secret").hexdigest()


def test_a_key_is_known_by_its_hash(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# ours\n\n ann : {HASH.upper()} \nbob:{'0' * 64}\n")
    file.chmod(0o600)
    keys = Keys(file)
    assert keys.name_of("secret") == "ann"
    assert keys.name_of("Secret") is None
    assert keys.name_of("") is None
    assert keys.name_of(HASH) is None


@pytest.mark.parametrize(
    "line",
    ["ann", "ann:", "ann:secret", f":{HASH}", f"an n:{HASH}", f"ann:{HASH}0", f"ann:{HASH}:x"],
)
def test_a_malformed_line_is_named_and_never_shown(line: str) -> None:
    with pytest.raises(InvalidKeysFile, match="line 2 of the keys file keys") as caught:
        parse(f"# one\n{line}\n", FILE)
    assert "secret" not in caught.value.detail
    assert HASH not in caught.value.detail


def test_a_name_is_unique() -> None:
    with pytest.raises(InvalidKeysFile, match=r"line 2 .* repeats a name"):
        parse(f"ann:{HASH}\nann:{HASH}\n", FILE)


def test_editing_leaves_everything_else_as_it_is() -> None:
    text = added("# ours\nbob:" + "0" * 64, FILE, "ann", "secret")
    assert text == f"# ours\nbob:{'0' * 64}\nann:{HASH}\n"
    assert removed(text, FILE, "bob") == f"# ours\nann:{HASH}\n"
    with pytest.raises(Conflict, match="has a key 'ann'"):
        added(text, FILE, "ann", "other")
    with pytest.raises(NotFound, match="no key 'eve'"):
        removed(text, FILE, "eve")
    with pytest.raises(InvalidRequest, match="a key's name"):
        added(text, FILE, "a:b", "other")


def test_a_reload_that_fails_keeps_the_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"ann:{HASH}\n")
    keys = Keys(file)
    file.write_text("nonsense\n")
    with pytest.raises(InvalidKeysFile):
        keys.reload()
    assert keys.name_of("secret") == "ann"
    file.write_text("")
    keys.reload()
    assert keys.name_of("secret") is None


def test_a_file_that_every_user_can_read_is_warned_about(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"ann:{HASH}\n")
    for mode, warnings in ((0o644, 1), (0o640, 0)):
        file.chmod(mode)
        with structlog.testing.capture_logs() as logs:
            Keys(file)
        assert len(logs) == warnings


def myllm(home: Path, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "myllm", *arguments],
        env=environment(home, **settings), cwd=home, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_the_commands(tmp_path: Path) -> None:
    file = tmp_path / "etc" / "keys"
    made = myllm(tmp_path, "key", "add", "ann", api_keys_file=file)
    key = made.stdout.strip()
    assert len(key) >= 32
    assert key not in made.stderr
    assert file.read_text() == f"ann:{hashlib.sha256(key.encode()).hexdigest()}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    link = tmp_path / "link"
    link.symlink_to(file)
    assert myllm(tmp_path, "key", "add", "bob", "--file", str(link)).stdout.strip() != key
    assert link.is_symlink()
    assert myllm(tmp_path, "key", "list", "--file", str(file)).stdout == "ann\nbob\n"
    as_json = myllm(tmp_path, "key", "list", "--json", "--file", str(file)).stdout
    assert json.loads(as_json) == [{"name": "ann"}, {"name": "bob"}]
    assert myllm(tmp_path, "key", "rm", "ann", "--file", str(file)).returncode == 0
    assert myllm(tmp_path, "key", "list", "--file", str(file)).stdout == "bob\n"
    assert os.listdir(file.parent) == ["keys"]
    again = myllm(tmp_path, "key", "rm", "ann", "--file", str(file))
    assert (again.returncode, again.stderr) == (1, f"error: {file} has no key 'ann'\n")
    assert "MYLLM_API_KEYS_FILE" in myllm(tmp_path, "key", "list").stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "does not exist"), ("ann:secret\n", "line 1"), ("folder", "cannot read")],
)
def test_serve_stops_at_an_unusable_file(tmp_path: Path, content: str | None, words: str) -> None:
    file = tmp_path / "keys"
    if content == "folder":
        file.mkdir()
    elif content is not None:
        file.write_text(content)
    done = myllm(tmp_path, "serve", "--port", "0", api_keys_file=file)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert str(file) in done.stderr
    assert "secret" not in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("trusted_proxies", "10.0.0.1, proxy"),
        ("cors_origins", "a.example"),
        ("cors_origins", "https://a.example/page"),
        ("cors_origins", "https://a*.example"),
        ("cors_origins", "*://a.example"),
        ("cors_origins", "https://a.example, http://localhost:30*"),
    ],
)
def test_a_wrong_rule_is_named(tmp_path: Path, name: str, value: str) -> None:
    done = myllm(tmp_path, "serve", "--port", "0", **{name: value})
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: setting MYLLM_{name.upper()}: ")


def test_the_command_lines_key_is_never_shown(tmp_path: Path) -> None:
    done = myllm(tmp_path, "ps", api_key="sesame", port=1)
    assert "sesame" not in done.stdout + done.stderr
    shown = "from myllm.settings import load_settings; print(load_settings())"
    printed = subprocess.run(
        [sys.executable, "-c", shown],
        env=environment(tmp_path, api_key="sesame", allowed_hosts="a.example, b.example"),
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "sesame" not in printed.stdout
    assert json.dumps(["a.example", "b.example"])[1:-1].replace('"', "'") in printed.stdout
