"""Prove that an engine works on this CPU: it must answer a question in each quantization.

A list of the CPU's features proves nothing: hypervisors show features that the guest may not
use, and compilers have produced engines that die of SIGILL only with quantized models. So the
engine runs each quantization of the demo model. It reads a prompt of more than 64 tokens in one
batch, which uses the code for matrices, and answers token by token, which uses the code for
vectors. A working engine gives this answer in all nine quantizations, so a wrong one is a fault.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import httpx

from myllm.engine.engine import Engine
from myllm.engine.hardware import cpu_features, widest_instruction_set
from myllm.engine.process import clean_environment, die_with_parent
from myllm.engine.progress import Progress, ProgressListener, no_progress
from myllm.engine.quantize import Quantizer, find_quantizer
from myllm.engine.selfcheck_result import Verdict
from myllm.errors import EngineError

# The demo model was trained on these questions and answers.
_CONVERSATION = (
    ("user", "Who are you?"),
    ("assistant", "I am the demo model of MyLLM, a tiny network that shows that everything works."),
    ("user", "What is the capital of Italy?"),
    ("assistant", "The capital of Italy is Rome."),
    ("user", "What is the capital of Germany?"),
    ("assistant", "The capital of Germany is Berlin."),
    ("user", "What is the capital of Spain?"),
    ("assistant", "The capital of Spain is Madrid."),
    ("user", "What is the capital of France?"),
)
_EXPECTED = "Paris"
_MIN_PROMPT_TOKENS = 64
_ANSWER_TOKENS = 16
# A load and an answer take about 0.2 s. On a busy machine they can take a hundred times as long,
# so slowness does not mean that the engine is broken.
_LOAD_S = 15.0
_ANSWER_S = 15.0
_ALL_S = 60.0
_POLL_S = 0.01
# Waiting threads sleep instead of spinning on cores that other programs need.
_SLEEPING_THREADS = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
# fmt: off
_ARGUMENTS = (
    "--alias", "demo", "--device", "none", "--load-mode", "none", "--fit", "off",
    "--parallel", "1", "--ctx-size", "512", "--batch-size", "512", "--ubatch-size", "512",
    "--cache-ram", "0", "--threads", "2",
)
# fmt: on


def check_engine(engine: Engine, progress: ProgressListener = no_progress) -> Verdict:
    """Run the whole check, which takes seconds; when it returns, its processes have been reaped."""
    began = time.monotonic()
    quantizer = find_quantizer(engine)
    faults: dict[str, str] = {}
    undecided: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="mlc-") as folder:
        for done, quantization in enumerate(quantizer.writes):
            progress(Progress("check", done, len(quantizer.writes), quantization))
            try:
                if time.monotonic() - began > _ALL_S:
                    raise _TooSlow(f"the check was ended after {_ALL_S:.0f} s")
                _answer_in(engine, quantizer, quantization, Path(folder))
            except _TooSlow as slowness:
                undecided[quantization] = slowness.detail
            except EngineError as fault:
                faults[quantization] = fault.detail
    seconds = round(time.monotonic() - began, 1)
    return Verdict(quantizer.writes, faults, undecided, quantizer.name, seconds, time.time())


class _TooSlow(EngineError):
    """The engine took too long, which does not prove that it is broken."""


def _answer_in(engine: Engine, quantizer: Quantizer, quantization: str, folder: Path) -> None:
    """Raise EngineError unless the engine gives the expected answer."""
    model = quantizer.write(quantization, folder)
    socket, log = folder / f"{quantization}.sock", folder / f"{quantization}.log"
    with log.open("wb") as output, _running(engine, model, socket, output) as server:
        transport = httpx.HTTPTransport(uds=str(socket))
        with httpx.Client(transport=transport, base_url="http://engine", trust_env=False) as client:
            try:
                _wait_until_loaded(server, client)
                _ask(client)
            except httpx.HTTPError as failure:
                raise _why(server, failure) from failure


@contextlib.contextmanager
def _running(
    engine: Engine, model: Path, socket: Path, output: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    command = [str(engine.server), "--model", str(model), "--host", str(socket), *_ARGUMENTS]
    try:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=clean_environment() | _SLEEPING_THREADS,
            preexec_fn=die_with_parent,
        )
    except OSError as failure:
        raise EngineError(f"it cannot be run: {failure.strerror or failure}") from failure
    try:
        yield server
    finally:
        server.kill()
        server.wait()


def _wait_until_loaded(server: subprocess.Popen[bytes], client: httpx.Client) -> None:
    deadline = time.monotonic() + _LOAD_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise EngineError(describe_exit(server.returncode))
        with contextlib.suppress(httpx.TransportError):
            if client.get("/health", timeout=_LOAD_S).status_code == 200:
                return
        time.sleep(_POLL_S)
    raise _TooSlow(f"it did not load the model in {_LOAD_S:.0f} s")


def _ask(client: httpx.Client) -> None:
    request = {
        "messages": [{"role": role, "content": text} for role, text in _CONVERSATION],
        "temperature": 0,
        "max_tokens": _ANSWER_TOKENS,
    }
    answer = client.post("/v1/chat/completions", json=request, timeout=_ANSWER_S)
    if answer.status_code != 200:
        raise EngineError(f"it answered with status {answer.status_code}: {answer.text[:200]}")
    content: dict[str, Any] = answer.json()
    reply = content["choices"][0]["message"]["content"] or ""
    read = content["usage"]["prompt_tokens"]
    if read < _MIN_PROMPT_TOKENS:
        raise EngineError(f"it read {read} tokens where the prompt has over {_MIN_PROMPT_TOKENS}")
    if _EXPECTED not in reply:
        raise EngineError(f"it answered {reply[:80]!r} in place of '{_EXPECTED}'")


def _why(server: subprocess.Popen[bytes], failure: httpx.HTTPError) -> EngineError:
    """The reason why a request failed; usually the process has just died."""
    try:
        return EngineError(describe_exit(server.wait(1.0)))
    except subprocess.TimeoutExpired:
        if isinstance(failure, httpx.TimeoutException):
            return _TooSlow(f"it gave no answer in {_ANSWER_S:.0f} s")
        return EngineError(f"it broke the connection ({type(failure).__name__})")


def describe_exit(code: int) -> str:
    """How an engine's process ended; for SIGILL with the likely instruction set."""
    if code >= 0:
        return f"it exited with code {code}"
    if code == -signal.SIGILL:
        suspect = widest_instruction_set(cpu_features())
        return f"it died of an illegal instruction (SIGILL), most likely of {suspect}"
    return f"it was killed by {signal.Signals(-code).name}"
