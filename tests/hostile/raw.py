"""Requests as bytes on a socket, in forms that no ordinary client sends."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterable

import orjson

from tests.serving import Serving

WAIT_S = 20.0


def connect(server: Serving, source: str | None = None) -> socket.socket:
    """Connect to the server, from the address `source` if it is given."""
    host, port = server.url.removeprefix("http://").rsplit(":", 1)
    at = (source, 0) if source else None
    return socket.create_connection((host, int(port)), WAIT_S, source_address=at)


def head(method: str, path: str, *lines: str) -> bytes:
    """The head of a request."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def post(path: str, body: object) -> bytes:
    """A whole request with a JSON body."""
    data = orjson.dumps(body)
    lines = ("Content-Type: application/json", f"Content-Length: {len(data)}")
    return head("POST", path, *lines) + data


def answer_to(server: Serving, pieces: Iterable[bytes], total: int = 2**26) -> bytes:
    """Send the pieces, at most `total` bytes, until the server closes or no piece is left; then
    return all that the server sends before it closes. Raises TimeoutError if it does not close."""
    with connect(server) as client:
        sent = 0
        try:
            for piece in pieces:
                client.sendall(piece)
                sent += len(piece)
                if sent >= total:
                    break
        except (BrokenPipeError, ConnectionResetError):
            pass
        return to_the_end(client)


def to_the_end(client: socket.socket) -> bytes:
    """All that the server sends before it closes; raises TimeoutError if it does not close."""
    received = bytearray()
    try:
        while block := client.recv(2**16):
            received += block
    except ConnectionResetError:
        pass
    return bytes(received)


def endless(piece: bytes, begin: bytes = b"") -> Iterable[bytes]:
    """`begin`, and then `piece` over and over, in blocks of about 64 KiB."""
    return itertools.chain([begin], itertools.repeat(piece * max(2**16 // len(piece), 1)))


def is_closed(client: socket.socket) -> bool:
    """Whether the server has closed the connection by now."""
    client.setblocking(False)
    try:
        while client.recv(2**16):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        pass
    return True
