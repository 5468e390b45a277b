"""Drive one kind of load against one server: with wrk for speed, with `lean` for first tokens."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson

_SCRIPT = Path(__file__).with_name("drive.lua")
_GRACE_S = 90


@dataclass(frozen=True)
class Target:
    """Where to ask what, and what a good answer has.

    `expected` is how often `word` occurs in one, and `ending` is near its end.
    """

    host: str
    port: int
    path: str
    body: str
    word: str
    expected: int
    ending: str


@dataclass(frozen=True)
class Driven:
    """What came of it.

    `closed` is how often a kept connection turned out to be closed, and the request went over
    another one; `wrong` is how many were not answered as they should, and `bad` an example.
    `cpu_s` is the load generator's own; `first_ms` only `lean` sees.
    """

    good: int
    wrong: int
    closed: int
    seconds: float
    cpu_s: float
    bad: str = ""
    first_ms: tuple[float, ...] = ()


def target(url: str, path: str, body: dict[str, Any], **answer: Any) -> Target:
    """A target at `url`; `answer` says what a good answer has."""
    address = httpx.URL(url)
    return Target(address.host, address.port or 80, path, orjson.dumps(body).decode(), **answer)


def has_wrk() -> bool:
    return shutil.which("wrk") is not None


def drive(target: Target, clients: int, seconds: float) -> Driven:
    """So many clients ask for `seconds`; answers under way then are waited for. As cheap as can be.

    By wrk if it is there, else by `lean`.
    """
    return _wrk(target, clients, seconds) if has_wrk() else first_tokens(target, clients, seconds)


def first_tokens(target: Target, clients: int, seconds: float) -> Driven:
    """The same, with the times to the first token."""
    return _lean(targets=[target], clients=clients, seconds=seconds)[0]


def in_turn(targets: Sequence[Target], turns: int) -> list[Driven]:
    """One client that asks each target in turn, so many times."""
    return _lean(targets=targets, turns=turns)


def _lean(targets: Sequence[Target], **plan: Any) -> list[Driven]:
    command = [sys.executable, "-m", "benchmarks.lean"]
    plan["targets"] = [asdict(each) for each in targets]
    done = subprocess.run(command, input=orjson.dumps(plan), stdout=subprocess.PIPE, check=True)
    return [Driven(**made) for made in orjson.loads(done.stdout)]


def _wrk(target: Target, clients: int, seconds: float) -> Driven:
    # wrk itself would cut off what is under way; the script ends it before that.
    longest = f"{int(seconds + _GRACE_S)}s"
    command = ["wrk", "-t1", f"-c{clients}", f"-d{longest}", f"--timeout={longest}"]
    command += ["-s", str(_SCRIPT), f"http://{target.host}:{target.port}", "--"]
    command += [target.path, target.body, f"{seconds:g}", str(clients)]
    command += [target.word, str(target.expected), target.ending]
    before = _children_cpu_s()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    said = re.search(r"^drove (\d+) (\d+) (\d+) (\S+) (.*)$", done.stdout, re.MULTILINE)
    if said is None:
        raise RuntimeError(f"wrk did not come to its end: {done.stdout[-500:]}")
    asked, answered, good = map(int, said.groups()[:3])
    return Driven(
        good=good,
        wrong=answered - good,
        closed=asked - answered,
        seconds=float(said[4]),
        cpu_s=_children_cpu_s() - before,
        bad=said[5],
    )


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
