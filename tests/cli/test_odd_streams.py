"""What commands read and write when their streams are not those of a modern terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from myllm.models.registry import BUILTIN_DIR
from tests.serving import START_S, Serving, environment, serving, stop, wait_until

pytestmark = pytest.mark.full  # a process for each command

MYLLM = [sys.executable, "-m", "myllm"]
LIMIT_S = 60


def shell(home: Path, line: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of shell in which "$@" is `myllm`."""
    return subprocess.run(
        ["bash", "-c", line, "bash", *MYLLM],
        env=environment(home, port=1) | variables,
        cwd=home,
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )


def test_a_reader_that_leaves_ends_the_command_quietly(home: Path) -> None:
    line = '{ "$@" list; echo $? >&2; } | :; { "$@" --help; echo $? >&2; } | :'
    assert shell(home, line).stderr == b"141\n141\n"


@pytest.mark.parametrize("command", ["list", "--version", "--help"])
def test_output_that_cannot_be_written_is_a_failure(home: Path, command: str) -> None:
    done = shell(home, f'"$@" {command} >/dev/full')
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert b"No space left on device" in done.stderr


def test_json_is_valid_in_any_encoding(home: Path) -> None:
    folder = home / "models" / "odd"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"description": "caf\u00e9 \u2026 \U0001f600"}')
    (folder / "odd.gguf").symlink_to(BUILTIN_DIR / "demo" / "demo.gguf")
    for encoding in ("ascii", "latin-1", "utf-8"):
        done = shell(home, '"$@" show odd --json', PYTHONIOENCODING=encoding)
        shown = json.loads(done.stdout.decode(encoding))
        assert shown["description"] == "caf\u00e9 \u2026 \U0001f600"


def test_an_unknown_setting_is_reported_once_and_outside_the_json(home: Path) -> None:
    done = shell(home, '"$@" list --json', MYLLM_KEEPALIVE="5m")
    assert [model["name"] for model in json.loads(done.stdout)] == ["demo"]
    told = b"warning: MYLLM_KEEPALIVE is not a setting; did you mean MYLLM_KEEP_ALIVE?\n"
    assert done.stderr == told


def test_a_named_env_file_is_read(home: Path) -> None:
    (home / "my.env").write_text(f"MYLLM_MODELS_DIR={home}/elsewhere\nMYLLM_PORT=2\n")
    done = shell(home, '"$@" --env-file my.env ps', MYLLM_PORT="3")
    assert b"http://127.0.0.1:3" in done.stderr
    done = shell(home, 'unset MYLLM_PORT; "$@" --env-file my.env ps')
    assert b"http://127.0.0.1:2" in done.stderr
    done = shell(home, '"$@" --env-file none.env ps')
    assert (done.returncode, done.stderr) == (
        2,
        b"error: the settings file none.env does not exist\n",
    )


def test_a_tilde_that_the_shell_leaves_is_the_home_directory(home: Path) -> None:
    (home / "keys").write_text(f"laptop:{'0' * 64}\n")
    done = shell(home, '"$@" key import "~/keys" --role admin', HOME=str(home))
    assert (done.returncode, done.stdout) == (0, b"laptop: imported\n")


def test_an_unforeseen_failure_is_one_line_and_a_traceback_only_when_verbose(home: Path) -> None:
    broken = (
        "import sys, myllm.models.registry as r\n"
        "def fail(self): raise KeyError('no\\nsuch thing')\n"
        "r.Registry.list = fail\n"
        "from myllm.__main__ import main\n"
        "main()\n"
    )

    def run(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-c", broken, *arguments],
            env=environment(home, port=1), capture_output=True, text=True, timeout=LIMIT_S,
        )  # fmt: skip
        return done.returncode, done.stderr

    code, errors = run("list")
    assert (code, errors.count("\n")) == (1, 1)
    assert errors.startswith("error: internal error: KeyError: ")
    assert "myllm --verbose" in errors
    code, errors = run("--verbose", "list")
    assert (code, errors.count("Traceback")) == (1, 1)
    assert "in fail" in errors


@pytest.mark.needs_root
def test_a_user_without_a_name_and_a_home(home: Path) -> None:
    home.chmod(0o777)
    (home / "tmp").mkdir()
    (home / "tmp").chmod(0o1777)
    # Python itself may lie where only root can read.
    user = "setpriv --reuid 12345 --regid 12345 --clear-groups --inh-caps +dac_read_search"
    line = (
        "unset HOME MYLLM_MODELS_DIR MYLLM_DATA_DIR MYLLM_STATE_DIR MYLLM_CONFIG MYLLM_RUNTIME_DIR "
        f'XDG_DATA_HOME; {user} --ambient-caps +dac_read_search "$@" sessions list'
    )
    own = home / "tmp" / "myllm-12345"
    done = shell(home, line, TMPDIR=str(home / "tmp"))
    assert (done.returncode, done.stderr.decode()) == (
        0,
        f"warning: there is no home directory; MyLLM keeps its files in {own}; set HOME\n",
    )
    assert (own.stat().st_mode & 0o777, own.stat().st_uid) == (0o700, 12345)
    assert (own / ".local/share/myllm/myllm.db").exists()
    os.chown(own, 12346, 12346)
    done = shell(home, line, TMPDIR=str(home / "tmp"))
    assert (done.returncode, b"can be changed by other users" in done.stderr) == (2, True)


def test_questions_in_another_encoding_are_answered(server: Serving) -> None:
    """Bytes that are not UTF-8 are replaced, in arguments and on stdin alike."""
    port = server.url.rpartition(":")[2]
    for line, warned in (
        ("\"$@\" run demo $'caf\\xe9'", False),
        ("echo $'caf\\xe9' | \"$@\" run demo", True),
    ):
        done = shell(server.home, line, MYLLM_PORT=port, LC_ALL="C.UTF-8")
        assert (done.returncode, b"stdin is not all UTF-8" in done.stderr) == (0, warned)
        assert done.stdout.strip()


@pytest.mark.full
def test_a_server_whose_greeting_cannot_be_written_serves(home: Path) -> None:
    with serving(home) as first:
        port = first.url.rpartition(":")[2]
    with (home / "errors").open("w") as errors, open("/dev/full", "w") as full:
        process = subprocess.Popen(
            [*MYLLM, "serve"], env=environment(home, port=port), stdout=full, stderr=errors,
        )  # fmt: skip

    def answers() -> bool:
        return b"MODEL" in shell(home, '"$@" ps', MYLLM_PORT=port).stdout

    try:
        wait_until(answers, START_S, "it answers")
    finally:
        stop(process)
    assert "Traceback" not in (home / "errors").read_text()
