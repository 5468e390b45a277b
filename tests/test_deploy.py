"""The dashboard, the alerts and the scrape configuration fit what the server exports.

Prometheus' own programs check the files, and a real Prometheus scrapes a real server.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import httpx
import jsonschema
import pytest
import yaml
from prometheus_client.metrics_core import Metric

from myllm import errors
from myllm.engine.engine import Engine
from tests.api.errors.test_handlers import subclasses
from tests.api.events import post
from tests.api.metrics import OPENMETRICS, families
from tests.dashboard_schema import DASHBOARD
from tests.serving import Serving, serving, short_home, wait_until

DEPLOY = Path(__file__).parent.parent / "deploy"
BOARD: Final[dict[str, Any]] = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
PANELS: Final = [each for each in BOARD["panels"] if each["type"] != "row"]
ALERTS: Final = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
RULES: Final = [rule for group in ALERTS["groups"] for rule in group["rules"]]
OWN = re.compile(r"\b(?:myllm|llamacpp|process)_\w+")
# Panels of what this machine or this load does not have.
MAY_BE_EMPTY: Final = {
    "GPU memory", "GPU utilization", "GPU power", "GPU temperature", "Rejections", "Errors",
    "KV states restored", "Background errors",
}  # fmt: skip
SHOWN_WITHIN_S = 60.0


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    """A server that has answered some requests."""
    with short_home() as path, serving(path, threads=1) as running, running.client() as api:
        ask(api)
        yield running


def ask(api: httpx.Client) -> None:
    body = {"model": "demo", "prompt": "The weather is", "max_tokens": 20, "stream": False}
    post(api, "/api/generate", **body)


def names_of(exported: list[Metric]) -> set[str]:
    """Return the name of each sample that these families can have."""
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    return {each.name + suffix for each in exported for suffix in suffixes.get(each.type, ("",))}


def expressions() -> list[str]:
    shown = [target["expr"] for panel in PANELS for target in panel["targets"]]
    variables = [each.get("definition", "") for each in BOARD["templating"]["list"]]
    return [*shown, *variables, *(rule["expr"] for rule in RULES)]


def test_the_dashboard_follows_grafanas_model() -> None:
    jsonschema.validate(BOARD, DASHBOARD)
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(ids) == len(set(ids))
    for panel in PANELS:
        refs = [target["refId"] for target in panel["targets"]]
        assert len(refs) == len(set(refs)), panel["title"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24, panel["title"]


def test_no_two_panels_overlap() -> None:
    for one, other in combinations([panel["gridPos"] for panel in BOARD["panels"]], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


def test_the_dashboard_has_the_four_parts() -> None:
    rows = [panel["title"] for panel in BOARD["panels"] if panel["type"] == "row"]
    assert rows == ["What users experience", "Engines", "Memory", "Host"]


def test_every_variable_that_is_used_is_defined() -> None:
    known = {each["name"] for each in BOARD["templating"]["list"]} | {"__rate_interval"}
    text = json.dumps(BOARD)
    used = {name for pair in re.findall(r"\$(?:(\w+)|\{(\w+)\})", text) for name in pair if name}
    assert used - {"__all"} == known


def test_every_error_that_an_alert_names_exists() -> None:
    named = {
        name for rule in RULES for found in re.findall(r'error_type=~"([^"]+)"', rule["expr"])
        for name in found.split("|")
    }  # fmt: skip
    assert named
    assert named <= {each.__name__ for each in subclasses(errors.MyLLMError)} | {"InternalError"}


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_every_metric_that_is_shown_or_alerted_on_is_exported(
    api: httpx.Client, accept: str
) -> None:
    # The engines' own metrics are there once an engine has been asked for them.
    wait_until(
        lambda: any(each.name.startswith("llamacpp_") for each in families(api)),
        SHOWN_WITHIN_S,
        "metrics of the engine",
    )
    used = {name for each in expressions() for name in OWN.findall(each)}
    assert len(used) > 30
    assert used <= names_of(families(api, accept))


def tool(name: str) -> str:
    """Return the path of a program of Prometheus; CI must have it."""
    found = shutil.which(name)
    assert found, f"{name} is missing; install Debian's package prometheus"
    return found


def run(*command: object, text: str = "") -> None:
    done = subprocess.run([*map(str, command)], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (0, ""), done.stdout + done.stderr


@pytest.mark.more
@pytest.mark.needs_prometheus
def test_promtool_accepts_the_files(tmp_path: Path) -> None:
    run(tool("promtool"), "check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    run(tool("promtool"), "check", "rules", DEPLOY / "prometheus" / "alerts.yml")


@pytest.mark.more
@pytest.mark.needs_prometheus
def test_promtool_accepts_the_metrics(api: httpx.Client) -> None:
    run(tool("promtool"), "check", "metrics", text=api.get("/metrics").text)


@contextmanager
def prometheus(server: Serving, folder: Path) -> Iterator[httpx.Client]:
    """A Prometheus with our files, except for the address and the interval."""
    shutil.copy(DEPLOY / "prometheus" / "alerts.yml", folder)
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    [job] = config["scrape_configs"]
    job["static_configs"] = [{"targets": [server.url.removeprefix("http://")]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        tool("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://{address}", trust_env=False) as client:
            wait_until(lambda: _is_ready(client), SHOWN_WITHIN_S, "Prometheus")
            yield client
    finally:
        process.terminate()
        process.wait(20)


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False


def answer(client: httpx.Client, expression: str) -> list[dict[str, Any]]:
    """Return what a panel's query gives, with all servers and models chosen."""
    for name, value in (("instance", ".+"), ("model", ".*"), ("__rate_interval", "1m")):
        expression = expression.replace(f"${name}", value)
    got = client.get("/api/v1/query", params={"query": expression}).json()
    assert got["status"] == "success", (expression, got)
    found: list[dict[str, Any]] = got["data"]["result"]
    return found


@pytest.mark.more
@pytest.mark.needs_prometheus
def test_a_real_prometheus_answers_every_panel(
    server: Serving, api: httpx.Client, tmp_path: Path
) -> None:
    with prometheus(server, tmp_path) as client:
        wait_until(lambda: bool(answer(client, 'up{job="myllm"} == 1')), SHOWN_WITHIN_S, "a scrape")
        [target] = client.get("/api/v1/targets").json()["data"]["activeTargets"]
        assert (target["health"], target["lastError"]) == ("up", "")
        ends_at, empty = time.monotonic() + SHOWN_WITHIN_S, {"none asked yet"}
        while empty and time.monotonic() < ends_at:
            ask(api)  # a rate needs a change between two scrapes
            time.sleep(1)
            empty = {
                panel["title"]
                for panel in PANELS
                if not any(answer(client, target["expr"]) for target in panel["targets"])
            } - MAY_BE_EMPTY
        assert not empty
        groups = client.get("/api/v1/rules").json()["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert len(rules) == len(RULES)
        wait_until(lambda: _all_evaluated(client), SHOWN_WITHIN_S, "the alerts")


def _all_evaluated(client: httpx.Client) -> bool:
    groups = client.get("/api/v1/rules").json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert not any(rule.get("lastError") for rule in rules), rules
    return all(rule["health"] == "ok" for rule in rules)
