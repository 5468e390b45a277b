"""Bad environments for commands: each is a way to start one where something is missing or odd."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import typer
from typer.main import get_command

from myllm.cli.main import app
from tests.serving import environment

LIMIT_S = 60
"""Far more than a command needs when it finds no model, no server and no engine."""

# Commands that would succeed even here, and arguments that make them fail early.
_HARMLESS = {("serve",): ["--host", "256.0.0.1"]}
_BROKEN = "port = [\n"


@dataclass(frozen=True)
class Start:
    """How a command is started; None as a value of `variables` removes the variable."""

    home: Path
    variables: dict[str, str | None] = field(default_factory=dict)
    # A shell line around the command, which is "$@".
    shell: str = 'exec "$@"'
    suffix: bytes = b""  # of what is neither a command's name nor an option
    terminal: bool = False


@dataclass(frozen=True)
class Ended:
    """How a command ended, with everything that it wrote."""

    command: str
    code: int
    output: str
    errors: str


def commands() -> list[tuple[str, ...]]:
    """All commands, as one writes them, and what stands in the place of one."""

    def below(group: typer.core.TyperGroup, path: tuple[str, ...]) -> list[tuple[str, ...]]:
        found = []
        for name, command in group.commands.items():
            if isinstance(command, typer.core.TyperGroup):
                found += below(command, (*path, name))
            else:
                found.append((*path, name))
        return found

    top = get_command(app)
    assert isinstance(top, typer.core.TyperGroup)
    return [*below(top, ()), ("--help",), ("--version",), ("no-such-command",)]


def harmless(command: Sequence[str]) -> list[str]:
    """The command with all its arguments, which name things that do not exist."""
    found = get_command(app)
    for name in command:
        assert isinstance(found, typer.core.TyperGroup)
        if name not in found.commands:
            return [name]
        found = found.commands[name]
    needed = [each for each in found.params if each.param_type_name == "argument"]
    return [*command, *_HARMLESS.get(tuple(command), ()), *("none" for _ in needed)]


def run(command: Sequence[str], start: Start) -> Ended:
    """Start `myllm` with these arguments in these surroundings and wait for its end."""
    said = [
        word.encode() + (start.suffix if word == "none" or " " in word else b"") for word in command
    ]
    arguments = [sys.executable.encode(), b"-m", b"myllm", *said]
    with ExitStack() as stack:
        reader = None
        stdout: int = subprocess.PIPE
        if start.terminal:
            reader, stdout = pty.openpty()
            stack.callback(os.close, reader)
        process = subprocess.Popen(
            ["sh", "-c", start.shell, "sh", *arguments],
            env=_variables(start),
            cwd=start.home,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        if reader is not None:
            os.close(stdout)
        try:
            output, errors = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, errors = process.communicate()
        if reader is not None:
            output = _rest(reader)
    text = b" ".join(arguments[3:]).decode(errors="backslashreplace")
    return Ended(text, process.returncode, output.decode(errors="replace"), errors.decode())


def _variables(start: Start) -> dict[str, str]:
    """No server, no model, no hub, and an engine that cannot be compiled."""
    nothing = {
        "port": 1,
        "llama_server": start.home / "no-llama-server",
        "llama_source": start.home / "no-llama-source",
        "cache_dir": start.home / "cache",
    }
    base = environment(start.home, **nothing) | {
        "HOME": str(start.home),
        "HF_ENDPOINT": "http://127.0.0.1:1",
        "TERM": "dumb",
    }
    changed: dict[str, str | None] = {**base, **start.variables}
    return {name: value for name, value in changed.items() if value is not None}


def _rest(reader: int) -> bytes:
    found = b""
    while True:
        try:
            block = os.read(reader, 65536)
        except OSError:  # EIO: the other side is closed
            return found
        if not block:
            return found
        found += block


def _config(start: Start, content: bytes | None = None) -> Start:
    path = start.home / "config.toml"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    return start


def _fifo(start: Start) -> Start:
    os.mkfifo(start.home / "config.toml")
    return start


def _defaults(start: Start, home: str | None) -> Start:
    """Settings name no folder, so all folders are below HOME."""
    names = ("MODELS_DIR", "DATA_DIR", "STATE_DIR", "RUNTIME_DIR", "CACHE_DIR", "CONFIG")
    gone: dict[str, str | None] = {f"MYLLM_{name}": None for name in names}
    gone |= {"XDG_CONFIG_HOME": None, "XDG_DATA_HOME": None, "XDG_RUNTIME_DIR": None}
    return replace(start, variables={**gone, "HOME": home})


def _file_for(start: Start, *names: str) -> Start:
    (start.home / "file").write_text("not a folder")
    return replace(start, variables=dict.fromkeys(names, str(start.home / "file")))


def _file_as_home(start: Start) -> Start:
    made = _file_for(start, "HOME")
    return _defaults(made, made.variables["HOME"])


def _with(**variables: str | None) -> Callable[[Start], Start]:
    return lambda start: replace(start, variables=variables)


def _shell(line: str) -> Callable[[Start], Start]:
    return lambda start: replace(start, shell=line)


def _terminal(columns: str, term: str | None) -> Callable[[Start], Start]:
    given = {"COLUMNS": columns, "TERM": term}
    return lambda start: replace(start, variables=given, terminal=True)


_ALL_DIRS = ("MODELS_DIR", "DATA_DIR", "STATE_DIR", "RUNTIME_DIR", "CACHE_DIR")
_PRIVATE = "setpriv --reuid 12345 --regid 12345 --clear-groups --inh-caps +dac_read_search"

SURROUNDINGS: dict[str, Callable[[Start], Start]] = {
    "plain": lambda start: start,
    "no HOME": _with(HOME=None),
    "HOME is empty": _with(HOME=""),
    "HOME is a file": _file_as_home,
    "HOME cannot be written": lambda start: _defaults(start, "/proc"),
    "no TMPDIR": _with(TMPDIR="/proc/none"),
    "the working directory is gone": _shell('mkdir gone && cd gone && rmdir ../gone && exec "$@"'),
    "stdin is closed": _shell('exec "$@" <&-'),
    "stdout is closed": _shell('exec "$@" >&-'),
    "stderr is closed": _shell('exec "$@" 2>&-'),
    "all streams are closed": _shell('exec "$@" <&- >&- 2>&-'),
    "the disk of stdout is full": _shell('exec "$@" >/dev/full'),
    "all output is full": _shell('exec "$@" >/dev/full 2>&1'),
    "stdout has no reader": _shell('{ "$@"; echo $? >code; } | :; exit $(cat code)'),
    "ascii": _with(PYTHONIOENCODING="ascii"),
    "latin-1": _with(PYTHONIOENCODING="latin-1"),
    "LANG=C": _with(LANG="C", LC_ALL=None, LC_CTYPE=None),
    "LC_ALL=POSIX": _with(LC_ALL="POSIX"),
    "a locale without UTF-8": _with(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"),
    "arguments that are no UTF-8": lambda start: replace(start, suffix=b"\xff\xc3"),
    "a terminal without columns": _terminal("0", "xterm"),
    "a narrow terminal": _terminal("20", "dumb"),
    "a terminal of no known size": _terminal("wide", None),
    "typer's width is no number": _with(TERMINAL_WIDTH="wide"),
    "the models folder is a file": lambda start: _file_for(start, "MYLLM_MODELS_DIR"),
    "all folders are files": lambda start: _file_for(start, *(f"MYLLM_{e}" for e in _ALL_DIRS)),
    "no folder can be made": _with(**{f"MYLLM_{each}": "/proc/none/x" for each in _ALL_DIRS}),
    "a home that is not known": _with(MYLLM_MODELS_DIR="~no-such-user/models"),
    "config.toml is a folder": _config,
    "config.toml is a FIFO": _fifo,
    "config.toml is binary": lambda start: _config(start, bytes(range(256))),
    "config.toml is broken": lambda start: _config(start, _BROKEN.encode()),
    "config.toml has wrong types": lambda start: _config(start, b'slots = "many"\nhost = 5\n'),
    "config.toml has unknown keys": lambda start: _config(start, b"prot = 1\n[server]\nport = 1\n"),
    "an unknown setting": _with(MYLLM_KEEPALIVE="5m"),
    "a wrong setting": _with(MYLLM_PORT="http"),
    "a service of Kubernetes": _with(MYLLM_PORT="tcp://10.0.0.1:80", MYLLM_SERVICE_HOST="10.0.0.1"),
    "a database that is not there": _with(MYLLM_DATABASE_URL="postgresql://127.0.0.1:1/none"),
    "a database of no known kind": _with(MYLLM_DATABASE_URL="nonsense"),
    "a key that is none": _with(MYLLM_API_KEY="ü \n"),
}
"""The surroundings, by what is wrong."""

AS_ROOT: dict[str, Callable[[Start], Start]] = {
    "a user without a name": lambda start: replace(
        _defaults(start, None), shell=f'{_PRIVATE} --ambient-caps +dac_read_search "$@"'
    ),
    "a user without a name in another's home": lambda start: replace(
        _defaults(start, "/root"), shell=f'{_PRIVATE} "$@"'
    ),
    "a read-only disk": _shell(
        'exec unshare -m sh -c "mount -t tmpfs -o ro none . && cd . && exec \\"\\$@\\"" sh "$@"'
    ),
}
"""Those that only root can make, by what is wrong."""
