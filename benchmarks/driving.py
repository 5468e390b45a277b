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
    """A request, its address, and how to recognize a good answer.

    `word` occurs `expected` times in it, and `ending` is near its end. `key` is sent with the
    request, unless it is empty.
    """

    host: str
    port: int
    path: str
    body: str
    word: str
    expected: int
    ending: str
    key: str = ""


@dataclass(frozen=True)
class Driven:
    """The result of a load.

    `closed` counts kept connections that turned out to be closed, so that the request needed a new
    one; `wrong` counts bad answers, and `bad` is an example. `cpu_s` is the load generator's own;
    only `lean` measures `first_ms`.
    """

    good: int
    wrong: int
    closed: int
    seconds: float
    cpu_s: float
    bad: str = ""
    first_ms: tuple[float, ...] = ()


def target(url: str, path: str, body: dict[str, Any], **answer: Any) -> Target:
    """A target at `url`; `answer` are the fields that describe a good answer."""
    address = httpx.URL(url)
    return Target(address.host, address.port or 80, path, orjson.dumps(body).decode(), **answer)


def has_wrk() -> bool:
    return shutil.which("wrk") is not None


def drive(target: Target, clients: int, seconds: float) -> Driven:
    """Load a server with `clients` for `seconds`, then wait for the running answers, at the lowest
    possible cost: with wrk if it is installed, otherwise with `lean`.
    """
    return _wrk(target, clients, seconds) if has_wrk() else first_tokens(target, clients, seconds)


def first_tokens(target: Target, clients: int, seconds: float) -> Driven:
    """The same with `lean`, which measures the times to the first token."""
    return _lean(targets=[target], clients=clients, seconds=seconds)[0]


def in_turn(targets: Sequence[Target], turns: int) -> list[Driven]:
    """Let one client send requests to each target in turn, `turns` times."""
    return _lean(targets=targets, turns=turns)


def _lean(targets: Sequence[Target], **plan: Any) -> list[Driven]:
    command = [sys.executable, "-m", "benchmarks.lean"]
    plan["targets"] = [asdict(each) for each in targets]
    done = subprocess.run(command, input=orjson.dumps(plan), stdout=subprocess.PIPE, check=True)
    return [Driven(**made) for made in orjson.loads(done.stdout)]


def _wrk(target: Target, clients: int, seconds: float) -> Driven:
    # wrk itself would cut off running requests; the script ends it before that.
    longest = f"{int(seconds + _GRACE_S)}s"
    command = ["wrk", "-t1", f"-c{clients}", f"-d{longest}", f"--timeout={longest}"]
    command += ["-s", str(_SCRIPT), f"http://{target.host}:{target.port}", "--"]
    command += [target.path, target.body, f"{seconds:g}", str(clients)]
    command += [target.word, str(target.expected), target.ending, target.key]
    before = _children_cpu_s()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    report = re.search(r"^drove (\d+) (\d+) (\d+) (\S+) (.*)$", done.stdout, re.MULTILINE)
    if report is None:
        raise RuntimeError(f"wrk did not come to its end: {done.stdout[-500:]}")
    sent, answered, good = map(int, report.groups()[:3])
    return Driven(
        good=good,
        wrong=answered - good,
        closed=sent - answered,
        seconds=float(report[4]),
        cpu_s=_children_cpu_s() - before,
        bad=report[5],
    )


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
