"""The version and devices of a llama-server binary."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from myllm.engine.engine import Device, Engine
from myllm.engine.process import run_and_read
from myllm.errors import EngineError, EngineMissing

_TIMEOUT_S = 30.0
# "version: 0.5.0-dev (build 11420, commit 0c1e57098)"; before that "version: 4567 (0c1e5709)".
_NEW_VERSION = re.compile(r"^version: (\S+) \(build (\d+), commit (\S+)\)", re.MULTILINE)
_OLD_VERSION = re.compile(r"^version: (\d+) \((\S+)\)", re.MULTILINE)
_DEVICE = re.compile(r"^\s+(\S+): (.*) \((\d+) MiB, (\d+) MiB free\)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Identity:
    """What a llama-server reports about itself."""

    version: str
    build: int
    commit: str
    backends: tuple[str, ...]


def identify(server: Path) -> Identity:
    """Run `server` twice and read its answers.

    Raises EngineMissing when it cannot be run or is not a llama-server, with the program's path and
    its own words.
    """
    output = _ask(server, "--version")
    if match := _NEW_VERSION.search(output):
        version, build, commit = match[1], int(match[2]), match[3]
    elif match := _OLD_VERSION.search(output):
        version, build, commit = f"b{match[1]}", int(match[1]), match[2]
    else:
        raise EngineMissing(f"{server} is not a llama-server: --version said {_shorten(output)!r}")
    return Identity(version, build, commit, _backends(devices_of(server)))


def identify_once(server: Path, cache_dir: Path) -> Identity:
    """`identify`, remembered in the cache for as long as the file does not change."""
    name = hashlib.sha256(file_stamp(server).encode()).hexdigest()[:24]
    memory = cache_dir / "probes" / f"{name}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(memory.read_text())
        return Identity(known["version"], known["build"], known["commit"], tuple(known["backends"]))
    identity = identify(server)
    # Without a writable cache this takes longer next time.
    with contextlib.suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        aside = memory.with_suffix(f".{os.getpid()}")
        aside.write_text(json.dumps(asdict(identity)))
        aside.replace(memory)
    return identity


def file_stamp(file: Path) -> str:
    """Changes when `file` is replaced or written. Raises OSError if it is gone."""
    facts = file.stat()
    return f"{file}:{facts.st_mtime_ns}:{facts.st_size}:{facts.st_ino}"


def list_devices(engine: Engine) -> list[Device]:
    """The accelerators that `engine` sees now; empty if it computes on the CPU.

    Raises EngineError when the engine cannot be run.
    """
    return devices_of(engine.server)


def devices_of(server: Path) -> list[Device]:
    """The devices that the program `server` lists."""
    return [
        Device(name, description, int(total), int(free))
        for name, description, total, free in _DEVICE.findall(_ask(server, "--list-devices"))
    ]


def _backends(devices: list[Device]) -> tuple[str, ...]:
    return tuple(sorted({"CPU", *(device.name.rstrip("0123456789") for device in devices)}))


def _ask(server: Path, flag: str) -> str:
    """Both outputs of `server flag`: llama-server prints its version to stderr."""
    try:
        done = run_and_read([str(server), flag], _TIMEOUT_S)
    except OSError as failure:
        raise EngineMissing(f"{server} cannot be run: {failure.strerror or failure}") from failure
    except subprocess.TimeoutExpired as hang:
        raise EngineError(f"{server} {flag} gave no answer in {_TIMEOUT_S:.0f} s") from hang
    if done.returncode != 0:
        raise EngineMissing(
            f"{server} is not a usable llama-server: {flag} ended with {done.returncode}: "
            f"{_shorten(done.stdout)}"
        )
    return done.stdout


def _shorten(text: str) -> str:
    return " / ".join(text.strip().splitlines()[-3:])[:300] or "nothing"
