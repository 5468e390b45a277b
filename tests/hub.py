"""A hub on loopback: enough of the Hugging Face HTTP API for the real client, with faults.

It serves files as the hub serves those in LFS: `resolve` redirects to another path, which supports
ranges. `requests` records every request.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_HOLD_S = 60.0
_SLICE = 1 << 16


@dataclass
class Repo:
    """The files of one repository; a `gated` one requires the token `hf_good`."""

    files: dict[str, bytes] = field(default_factory=dict)
    gated: bool = False
    plain_git: bool = False
    declared_size: int | None = None


@dataclass
class Seen:
    """One request."""

    method: str
    path: str
    range: str | None
    authorization: str | None


@dataclass
class Hub:
    """The repositories, the faults to inject and the requests received.

    `cut_after` closes (with `reset`: resets) the connection after that many bytes of an answer,
    `cuts` times; `hold_after` stops sending there until the client leaves; `spoil` changes one
    byte; `no_ranges` answers a request for a range with the whole file; `down` answers 500. `more`
    bytes follow each file as part of it; `no_length` omits Content-Length. `poured` counts the
    bytes of files that were sent.
    """

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    requests: list[Seen] = field(default_factory=list)
    cut_after: int | None = None
    cuts: int = 0
    reset: bool = False
    hold_after: int | None = None
    spoil: bool = False
    no_ranges: bool = False
    down: bool = False
    more: int = 0
    no_length: bool = False
    poured: int = 0
    closing: threading.Event = field(default_factory=threading.Event)

    def ranges(self) -> list[str | None]:
        """The Range header of each request for a file's bytes, in order."""
        return [seen.range for seen in self.requests if seen.path.startswith("/bytes/")]


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Serve an empty hub until the block ends."""
    hub = Hub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        hub.closing.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output clean."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        token = self.headers["Authorization"]
        self.state.requests.append(Seen(self.command, path, self.headers["Range"], token))
        if self.state.down:
            self._send(500, b"{}")
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/.+)?", path):
            self._info(match[1])
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(match[1], match[3])
        elif match := re.fullmatch(r"/bytes/([^/]+/[^/]+)/(.+)", path):
            self._bytes(self.state.repos[match[1]].files[match[2]])
        else:
            self._send(404, b"{}")

    def _info(self, name: str) -> None:
        repo = self.state.repos.get(name)
        if repo is None:
            # Without a token the hub does not reveal whether a repository is private or missing.
            self._send(401, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        siblings = [_sibling(repo, file, content) for file, content in repo.files.items()]
        info = {"id": name, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}
        self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def _resolve(self, name: str, file: str) -> None:
        repo = self.state.repos[name]
        if repo.gated and self.headers["Authorization"] != "Bearer hf_good":
            status = 403 if self.headers["Authorization"] else 401
            self._send(status, b"{}", {"X-Error-Code": "GatedRepo"})
            return
        content = repo.files[file]
        headers = {
            "X-Repo-Commit": COMMIT,
            "X-Linked-Size": str(len(content)),
            "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
            "Location": f"/bytes/{name}/{file}",
        }
        self._send(302, b"", headers)

    def _bytes(self, content: bytes) -> None:
        first = 0
        match = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        if match and not self.state.no_ranges:
            first = int(match[1])
        length = len(content) + self.state.more
        headers = {"Content-Length": str(length - first), "ETag": '"e"'}
        if first:
            headers["Content-Range"] = f"bytes {first}-{length - 1}/{length}"
        if self.state.no_length:
            headers = {"ETag": '"e"', "Connection": "close"}
            self.close_connection = True
        self._head(206 if first else 200, headers)
        if self.command == "GET":
            try:
                self._pour(content, first)
            except OSError:
                self.close_connection = True  # the client left

    def _pour(self, content: bytes, first: int) -> None:
        hub, sent = self.state, 0
        for at in range(first, len(content), _SLICE):
            if hub.cuts and hub.cut_after is not None and sent >= hub.cut_after:
                hub.cuts -= 1
                self._cut()
                return
            if hub.hold_after is not None and sent >= hub.hold_after:
                hub.closing.wait(_HOLD_S)
                self.close_connection = True
                return
            piece = bytearray(content[at : at + _SLICE])
            if hub.spoil and at + len(piece) == len(content):
                piece[-1] ^= 1
            self.wfile.write(piece)
            sent += len(piece)
            hub.poured += len(piece)
        for _ in range(0, hub.more, _SLICE):
            self.wfile.write(bytes(min(_SLICE, hub.more)))
            hub.poured += min(_SLICE, hub.more)

    def _cut(self) -> None:
        self.close_connection = True
        if self.state.reset:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self._head(status, {"Content-Length": str(len(body))} | (headers or {}))
        if self.command == "GET":
            self.wfile.write(body)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _sibling(repo: Repo, name: str, content: bytes) -> dict[str, Any]:
    size = repo.declared_size if repo.declared_size is not None else len(content)
    blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    sibling: dict[str, Any] = {"rfilename": name, "size": size, "blobId": blob}
    if name.endswith(".gguf") and not repo.plain_git:
        checksum = hashlib.sha256(content).hexdigest()
        sibling["lfs"] = {"sha256": checksum, "size": size, "pointerSize": 134}
    return sibling
