"""Commands wait for a server that cannot answer yet, and say so."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from myllm.cli import client
from myllm.engine.engine import Engine
from myllm.errors import ServeFailed
from myllm.settings import load_settings
from tests.api.credentials import port_of
from tests.serving import environment, serving, wait_until

STARTING = (503, {"detail": "The server is starting"})
DRAINING = (200, {"name": "MyLLM", "status": "draining"})
READY = (200, {"name": "MyLLM", "status": "healthy"})


@contextmanager
def answering(*answers: tuple[int, object]) -> Iterator[int]:
    """A port that gives `answers`, the last one again and again."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = left.pop(0) if len(left) > 1 else left[0]
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the tests' output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@pytest.mark.parametrize(
    ("answers", "to_generate", "is_found", "words"),
    [
        ((READY,), True, True, ""),
        ((STARTING, STARTING, READY), False, True, "is starting; waiting for it"),
        ((DRAINING,), False, True, ""),
        ((DRAINING, READY), True, True, "is stopping; waiting for it"),
        (((503, "busy elsewhere"),), True, False, ""),
        (((200, {"name": "another"}),), True, False, ""),
    ],
)
def test_a_server_is_waited_for_until_it_can_answer(
    capsys: pytest.CaptureFixture[str],
    answers: tuple[tuple[int, object], ...],
    to_generate: bool,
    is_found: bool,
    words: str,
) -> None:
    with answering(*answers) as port:
        settings = load_settings(host="127.0.0.1", port=port)
        found = client.running_server(settings, to_generate=to_generate)
        assert (found is not None) is is_found
        if found is not None:
            found.close()
    told = capsys.readouterr().err
    assert words in told
    assert bool(told) is bool(words)


def test_the_wait_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_NOT_READY_S", 0.5)
    with answering(STARTING) as port, pytest.raises(ServeFailed, match="set MYLLM_PORT"):
        client.running_server(load_settings(host="127.0.0.1", port=port))


def test_run_waits_for_a_busy_server_and_loads_no_engine_of_its_own(
    engine: Engine, home: Path
) -> None:
    with serving(home) as server:
        server.process.send_signal(signal.SIGSTOP)
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "myllm", "run", "demo", "What is the capital of France?"],
                env=environment(home, port=port_of(server)), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert process.stderr is not None
            assert "does not answer; waiting for it" in process.stderr.readline()
            assert psutil.Process(process.pid).children() == []
        finally:
            server.process.send_signal(signal.SIGCONT)
        out, err = process.communicate(timeout=90)
        assert (out, err) == ("The capital of France is Paris.\n", "")


@pytest.mark.more
def test_run_outlives_the_end_of_a_stopping_server(engine: Engine, home: Path) -> None:
    """It waits until the old server has ended, and then starts one of its own."""
    with serving(home, drain_grace=60) as server, server.client() as api:
        body = {"model": "demo", "messages": [{"role": "user", "content": "Count to one hundred."}]}
        options = {"max_tokens": 400}
        with api.stream("POST", "/api/chat", json=body | {"options": options}) as answer:
            lines = answer.iter_lines()
            next(line for line in lines if "token" in line)
            [running] = server.engines()
            running.suspend()
            server.process.send_signal(signal.SIGTERM)
            wait_until(
                lambda: api.get("/").json()["status"] == "draining", 30, "the end of the server"
            )
            process = subprocess.Popen(
                [sys.executable, "-m", "myllm", "run", "demo", "What is the capital of France?"],
                env=environment(home, port=port_of(server)), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert process.stderr is not None
            assert "is stopping; waiting for it" in process.stderr.readline()
            running.resume()
            assert list(lines)
        out, err = process.communicate(timeout=90)
        assert (out, err) == ("The capital of France is Paris.\n", "")
