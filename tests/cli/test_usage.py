"""`myllm usage`: a table, JSON and comma-separated values, with a server and without one."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from myllm.cli.usage import csv_of
from myllm.engine.engine import Engine
from tests.api.credentials import port_of
from tests.api.events import post
from tests.serving import Serving, environment, serving, short_home


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as home, serving(home, threads=1) as running:
        with running.client() as api:
            asked = {"model": "demo", "prompt": "The sea", "options": {"max_tokens": 4}}
            post(api, "/api/generate", **asked, stream=False)
        yield running


def myllm(home: Path, *arguments: str, port: int = 1) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "myllm", *arguments],
        env=environment(home, port=port), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def output(server: Serving, *arguments: str) -> str:
    done = myllm(server.home, "usage", *arguments, port=port_of(server))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_as_a_table(server: Serving) -> None:
    headings, demo, total = output(server).splitlines()
    names = ["MODEL", "REQUESTS", "PROMPT", "CACHED", "GENERATED", "SLOT", "SECONDS", "ERRORS"]
    assert headings.split() == names
    assert demo.split()[:5] == ["demo", "1", "5", "0", "4"]
    assert total.split()[:5] == ["all", "1", "5", "0", "4"]
    assert output(server, "--by", "key").splitlines()[1].split()[:2] == ["-", "1"]


def test_as_json_and_as_comma_separated_values(server: Serving) -> None:
    found = json.loads(output(server, "--json", "--by", "key", "--since", "2020-01-01"))
    assert found["total"]["generated_tokens"] == 4
    [row] = csv.DictReader(io.StringIO(output(server, "--csv")))
    assert (row["model"], row["requests"], row["generated_tokens"]) == ("demo", "1", "4")


def test_wrong_options(server: Serving) -> None:
    port = port_of(server)
    both = myllm(server.home, "usage", "--json", "--csv", port=port)
    assert (both.returncode, "exclude each other" in both.stderr) == (2, True)
    assert myllm(server.home, "usage", "--by", "colour", port=port).returncode == 2
    soon = myllm(server.home, "usage", "--since", "soon", port=port)
    assert (soon.returncode, "since must be a duration" in soon.stderr) == (1, True)


def test_without_a_server(engine: Engine, home: Path) -> None:
    with serving(home, threads=1) as running, running.client() as api:
        asked = {"model": "demo", "prompt": "The sea", "options": {"max_tokens": 4}}
        post(api, "/api/generate", **asked, stream=False)
    done = myllm(home, "usage", "--csv")
    assert done.returncode == 0, done.stderr
    [row] = csv.DictReader(io.StringIO(done.stdout))
    assert (row["model"], row["requests"]) == ("demo", "1")


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", '=HYPERLINK("x")'])
def test_a_name_is_no_formula(name: str) -> None:
    counts = dict.fromkeys(
        ("requests", "prompt_tokens", "cached_tokens", "generated_tokens", "errors"), 1
    )
    sums = {"key": name, **counts, "slot_seconds": 0.5}
    _, row = csv.reader(io.StringIO(csv_of("key", [sums]), newline=""))
    assert row == [f"'{name}", "1", "1", "1", "1", "0.5", "1"]


def test_a_name_stays_on_its_line() -> None:
    counts = dict.fromkeys(
        ("requests", "prompt_tokens", "cached_tokens", "generated_tokens", "errors"), 1
    )
    sums = {"key": "\r\n=1+1", **counts, "slot_seconds": 0.5}
    assert len(csv_of("key", [sums]).splitlines()) == 2


def test_an_ordinary_name_stays_as_it_is() -> None:
    counts = dict.fromkeys(
        ("requests", "prompt_tokens", "cached_tokens", "generated_tokens", "errors"), 1
    )
    sums = {"key": 'ann, "the" first', **counts, "slot_seconds": 0.5}
    assert list(csv.reader(io.StringIO(csv_of("key", [sums]))))[1][0] == 'ann, "the" first'
