"""A real llama-server behind a connection that damages its streams.

The command line is the real program, a file, and the engine's arguments. The file names how to
damage the next stream, and is then removed. A `STUCK` request never reaches the engine: its client
waits for ever while the engine answers all others, as if its computing threads were stuck.
"""

from __future__ import annotations

import http.client
import re
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

_END = b"\n\n"
_TEXT = re.compile(rb'"content":"[^"]+"')
_STREAMS = ("/completion", "/v1/chat/completions")
Chunks = list[bytes]


def _events(body: bytes) -> Chunks:
    return [each + _END for each in body.split(_END)[:-1]]


def _byte_by_byte(body: bytes) -> Chunks:
    return [body[at : at + 1] for at in range(len(body))]


def _joined(body: bytes) -> Chunks:
    return [body]


def _with_comments(body: bytes) -> Chunks:
    return [part for each in _events(body) for part in (b": still there" + _END, each)]


def _a_megabyte(body: bytes) -> Chunks:
    return [_TEXT.sub(b'"content":"' + b"x" * 2**20 + b'"', body, count=1)]


def _invalid_utf_8(body: bytes) -> Chunks:
    return [_TEXT.sub(b'"content":"\xff"', body, count=1)]


def _an_error(body: bytes) -> Chunks:
    error = b'data: {"error":{"code":500,"message":"it is full","type":"server_error"}}'
    return [*_events(body)[:4], error + _END]


def _stops_in_an_event(body: bytes) -> Chunks:
    *whole, last = _events(body)[:5]
    return [*whole, last[:20]]


def _stops_early(body: bytes) -> Chunks:
    return _events(body)[:5]


def _ends_in_no_json(body: bytes) -> Chunks:
    """The last event is truncated but properly terminated; `[DONE]` follows as usual."""
    *whole, last = [each for each in _events(body) if not each.endswith(b"[DONE]\n\n")]
    rest = [each for each in _events(body) if each.endswith(b"[DONE]\n\n")]
    return [*whole, b"".join([last[:40] + _END, *rest])]


DAMAGES: dict[str, Callable[[bytes], Chunks]] = {
    "byte by byte": _byte_by_byte,
    "joined": _joined,
    "with comments": _with_comments,
    "a megabyte": _a_megabyte,
    "invalid UTF-8": _invalid_utf_8,
    "an error": _an_error,
    "stops in an event": _stops_in_an_event,
    "stops early": _stops_early,
    "ends in no JSON": _ends_in_no_json,
    "breaks in an event": _stops_in_an_event,
}
"""The chunks that replace a stream; one that breaks also lacks the end of its HTTP answer."""

STUCK = "stuck"


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


def damages_answers() -> None:
    """Run the engine behind this process, and damage its streams."""
    real, fault, *arguments = sys.argv[2:]
    stand_before(real, arguments, lambda client, engine, _: _pass_on(client, engine, Path(fault)))


PassOn = Callable[[socketserver.StreamRequestHandler, str, "subprocess.Popen[bytes]"], None]
"""Serves one connection: gets the client, the engine's socket and the engine's process."""


def stand_before(real: str, arguments: list[str], pass_on: PassOn) -> None:
    """Run the engine behind this process, on a second socket beside the one in `arguments`."""
    at = arguments.index("--host") + 1
    front = arguments[at]
    back = front.removesuffix(".sock") + ".real.sock"

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            pass_on(self, back, engine)

    Path(front).unlink(missing_ok=True)
    with _Server(front, Handler) as server:
        engine = subprocess.Popen([real, *arguments[:at], back, *arguments[at + 1 :]])
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        threading.Thread(target=_end_with, args=(engine, server), daemon=True).start()
        try:
            server.serve_forever()
        finally:
            engine.kill()
            engine.wait()


def _end_with(engine: subprocess.Popen[bytes], server: _Server) -> None:
    engine.wait()
    server.shutdown()


def _take(fault: Path) -> str:
    """The damage for this stream; empty for none."""
    try:
        damage = fault.read_text()
    except FileNotFoundError:
        return ""
    fault.unlink()
    return damage


def _pass_on(client: socketserver.StreamRequestHandler, engine: str, fault: Path) -> None:
    method, path, _ = client.rfile.readline().decode().split()
    headers = http.client.parse_headers(client.rfile)
    body = client.rfile.read(int(headers.get("Content-Length", 0)))
    damage = _take(fault) if path in _STREAMS else ""
    if damage == STUCK:
        threading.Event().wait()
    connection = http.client.HTTPConnection("engine")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(engine)
    connection.request(method, path, body or None, dict(headers))
    answer = connection.getresponse()
    status, whole = answer.status, answer.read()
    connection.close()
    client.wfile.write(f"HTTP/1.1 {status} Damaged\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    for chunk in DAMAGES[damage](whole) if damage else [whole]:
        if chunk:
            client.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
    if not damage.startswith("breaks"):
        client.wfile.write(b"0\r\n\r\n")
