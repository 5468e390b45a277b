"""llama-server understands the flags for templates."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from myllm.engine.engine import Engine
from myllm.models.templates import BUILT_IN, flags_for
from tests.ggufs import write_model

pytestmark = pytest.mark.full

MESSAGES = [{"role": "user", "content": "hello"}]


@contextmanager
def rendering(engine: Engine, flags: list[str]) -> Iterator[httpx.Client]:
    """An engine with a tiny model and `flags`."""
    with tempfile.TemporaryDirectory(prefix="ml-") as home:
        model, address = write_model(Path(home) / "m.gguf"), f"{home}/x.sock"
        line = [str(engine.server), "-m", str(model), "--host", address, "-np", "1", "-t", "1"]
        process = subprocess.Popen([*line, *flags], stderr=subprocess.DEVNULL)
        transport = httpx.HTTPTransport(uds=address)
        try:
            with httpx.Client(transport=transport, base_url="http://engine") as client:
                _wait(client, process)
                yield client
        finally:
            process.kill()
            process.wait(10)


def _wait(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if client.get("/health").status_code == 200:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.05)
    raise AssertionError(f"the engine is not ready; exit code {process.poll()}")


def rendered(engine: Engine, flags: list[str]) -> str:
    with rendering(engine, flags) as client:
        answer = client.post("/apply-template", json={"messages": MESSAGES})
        prompt: str = answer.json()["prompt"]
        return prompt


def test_the_built_in_names_are_those_of_the_engine(engine: Engine) -> None:
    said = subprocess.run([engine.server, "--help"], capture_output=True, text=True, check=True)
    listed = re.search(r"list of built-in templates:\n((?:.*,\n)*.*)\n", said.stdout)
    assert listed is not None
    assert set(re.findall(r"[\w.-]+", listed[1].replace("\n", " "))) == set(BUILT_IN)


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("chatml", "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"),
        ("mistral", " [INST] hello [/INST]"),
        ("phi", "Instruct: hello\nOutput:"),
    ],
)
def test_a_name_renders_its_template(
    engine: Engine, tmp_path: Path, name: str, prompt: str
) -> None:
    assert rendered(engine, flags_for(name, tmp_path)) == prompt


def test_a_template_file_is_rendered(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text("[{{ messages[0].content }}]")
    assert rendered(engine, flags_for("own.jinja", tmp_path)) == "[hello]"
