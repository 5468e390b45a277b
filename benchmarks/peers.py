"""Servers that MyLLM is compared with, each on a free port of the loopback interface."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

_READY_S = 90.0
_STOP_S = 10.0
# Use the local price list; LiteLLM would fetch one from the network.
_LITELLM = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}


@dataclass(frozen=True)
class Peer:
    """A server that is ready; `process` is the process that listens."""

    url: str
    process: psutil.Process


@contextmanager
def llama_server(flags: Sequence[str], gguf: Path, name: str) -> Iterator[Peer]:
    """llama-server with one model."""
    command = [*flags, "--model", str(gguf), "--alias", name]
    with _running(command, _shell_environment(), name) as peer:
        yield peer


@contextmanager
def router(flags: Sequence[str], models_dir: Path, name: str) -> Iterator[Peer]:
    """llama-server without a model: a router, which passes its flags to its engines."""
    command = [*flags, "--models-dir", str(models_dir)]
    with _running(command, _shell_environment(), name) as peer:
        yield peer


@contextmanager
def litellm_proxy(program: str, upstream: str, name: str) -> Iterator[Peer]:
    """LiteLLM's proxy in front of a llama-server. Raises RuntimeError if it does not start."""
    behind = {"model": f"openai/{name}", "api_base": f"{upstream}/v1", "api_key": "none"}
    config = {"model_list": [{"model_name": name, "litellm_params": behind}]}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump(config, file)  # JSON is also YAML
        file.flush()
        with _running([program, "--config", file.name], os.environ | _LITELLM, name) as peer:
            yield peer


def _shell_environment() -> dict[str, str]:
    """The environment of a user who starts the server by hand. What MyLLM adds to the environment
    of its engines is part of the comparison."""
    ours = ("LLAMA_", "MYLLM_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@contextmanager
def _running(command: Sequence[str], env: Mapping[str, str], model: str) -> Iterator[Peer]:
    """Start a server and wait until it answers; end it when the block ends."""
    port = _free_port()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            peer = Peer(f"http://127.0.0.1:{port}", psutil.Process(process.pid))
            deadline = time.monotonic() + _READY_S
            while not _answers(peer.url, model):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(f"{command[0]} does not start: {log.read()[-500:].strip()}")
                time.sleep(0.1)
            yield peer
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(url: str, model: str) -> bool:
    """Whether it answers a question; for that, a router loads its model."""
    message = {"role": "user", "content": "Hello"}
    body = {"model": model, "messages": [message], "max_tokens": 1}
    try:
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=_READY_S)
    except httpx.TransportError:
        return False
    return answer.status_code == 200


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port
