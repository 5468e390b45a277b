"""Pulling over Ollama's API, from a hub on loopback, with Ollama's client."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import httpx
import ollama
import pytest

from myllm.engine.engine import Engine
from tests.api.native.test_events import listening
from tests.ggufs import write_header
from tests.hub import Hub, Repo, serve_hub
from tests.serving import Serving, serving, short_home

MB = 1 << 20
REPO = "org/Some-Model-GGUF"
FILE = "some-model.Q4_K_M.gguf"


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with serve_hub() as running:
        yield running


@pytest.fixture(scope="module")
def server(engine: Engine, hub: Hub) -> Iterator[Serving]:
    with short_home() as home, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if "proxy" in name.lower()]:
            patch.delenv(name)
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("HF_HOME", str(home / "hf"))
        patch.setenv("HF_TOKEN", "")
        patch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "1")
        with serving(home) as running:
            yield running


@pytest.fixture
def client(server: Serving) -> Iterator[ollama.Client]:
    with ollama.Client(host=f"{server.url}/ollama") as made:
        yield made


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model of 24 MB, which is downloaded in several pieces."""
    whole = write_header(tmp_path_factory.mktemp("model") / "m.gguf").read_bytes()
    return whole + random.Random(1).randbytes(24 * MB - len(whole))


def test_a_model_is_pulled_in_steps(
    client: ollama.Client, server: Serving, hub: Hub, model: bytes
) -> None:
    hub.repos[REPO] = Repo({FILE: model})
    steps = list(client.pull(f"hf.co/{REPO}", stream=True))
    assert steps[0].status == "pulling manifest"
    assert steps[-1].status == "success"
    files = [step for step in steps if step.digest]
    assert {step.total for step in files} == {24 * MB}
    came = [step.completed or 0 for step in files]
    assert came == sorted(came)
    assert came[-1] == 24 * MB
    assert len(set(came)) > 2
    assert (server.models_dir / "some-model" / FILE).read_bytes() == model
    assert "some-model:latest" in {each.model for each in client.list().models}
    assert client.pull(REPO).status == "success"  # it exists already


def test_a_pull_is_told_to_those_who_listen_to_events(
    client: ollama.Client, server: Serving, hub: Hub, model: bytes
) -> None:
    hub.repos["org/Told-GGUF"] = Repo({"told.Q4_K_M.gguf": model})
    with server.client() as api, listening(api) as reader:
        assert client.pull("hf.co/org/Told-GGUF").status == "success"
        reader.until("pull", model="told", status="success")
        reader.until("model_found", model="told")
        with pytest.raises(ollama.ResponseError):
            client.pull("hf.co/org/Missing-GGUF")
        failed = reader.until("pull", status="failed")
        assert "Missing-GGUF" in failed["error"]


def test_what_cannot_be_pulled_is_an_error_in_the_stream(client: ollama.Client, hub: Hub) -> None:
    steps = client.pull("nonsense", stream=True)
    assert next(steps).status == "pulling manifest"
    with pytest.raises(ollama.ResponseError, match="neither in the catalog"):
        next(steps)
    with pytest.raises(ollama.ResponseError, match="neither in the catalog") as unknown:
        client.pull("nonsense")
    assert unknown.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match="there is no repository") as refused:
        client.pull("org/nothing")
    assert refused.value.status_code == 502


async def test_a_pull_ends_with_its_client_and_goes_on_with_the_next(
    server: Serving, hub: Hub, model: bytes
) -> None:
    hub.repos["org/left"] = Repo({FILE: model})
    hub.hold_after = 15 * MB
    staging = server.models_dir / ".staging"
    async with ollama.AsyncClient(host=f"{server.url}/ollama") as client:
        steps = await client.pull("org/left", stream=True)
        async for step in steps:
            if step.completed:
                break
        await steps.aclose()  # type: ignore[attr-defined]
        hub.hold_after = None
        [part] = (staging / "left").iterdir()
        assert 0 < part.stat().st_size < 24 * MB
        hub.requests.clear()
        assert (await client.pull("org/left")).status == "success"
    assert hub.ranges()[-1] is not None
    assert (server.models_dir / "left" / FILE).read_bytes() == model


def test_two_clients_pull_the_same_model(
    client: ollama.Client, server: Serving, hub: Hub, model: bytes, api: httpx.Client
) -> None:
    hub.repos["org/twice"] = Repo({FILE: model})
    hub.hold_after = 15 * MB
    first = client.pull("org/twice", stream=True)
    while not next(first).completed:
        pass
    second = client.pull("org/twice", stream=True)
    assert next(second).status == "pulling manifest"
    assert "waiting for it" in (next(second).status or "")
    first.close()
    hub.hold_after = None
    assert list(second)[-1].status == "success"
    assert (server.models_dir / "twice" / FILE).read_bytes() == model
