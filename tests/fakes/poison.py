"""A real llama-server that dies of certain words in a request.

The command line is the real program and the engine's arguments. All other requests pass through
unchanged.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import socketserver
import subprocess
import sys

from tests.fakes.damage import stand_before

# Dies at once, dies in the middle of an answer, or computes for ever and answers no client.
KILLS, KILLS_LATER, HANGS = "arsenic", "antimony", "curare"
_LATER_CHUNKS = 6


def dies_of_poison() -> None:
    """Run the engine behind this process until a request contains poison."""
    real, *arguments = sys.argv[2:]
    stand_before(real, arguments, _pass_on)


def _pass_on(
    client: socketserver.StreamRequestHandler, socket_path: str, engine: subprocess.Popen[bytes]
) -> None:
    first = client.rfile.readline()
    method, path, _ = first.decode().split()
    headers = http.client.parse_headers(client.rfile)
    body = client.rfile.read(int(headers.get("Content-Length", 0)))
    generates = path.endswith(("completion", "completions"))
    if KILLS.encode() in body:
        _die(engine)
    if generates and HANGS.encode() in body:
        engine.send_signal(signal.SIGSTOP)
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(socket_path)
    head = f"{method} {path} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n"
    kind = headers.get("Content-Type")
    head += f"Content-Type: {kind}\r\n" if kind else ""
    connection.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    chunks = 0
    while chunk := connection.recv(2**16):
        client.wfile.write(chunk)
        chunks += 1
        if generates and KILLS_LATER.encode() in body and chunks >= _LATER_CHUNKS:
            _die(engine)


def _die(engine: subprocess.Popen[bytes]) -> None:
    engine.kill()
    os.abort()
