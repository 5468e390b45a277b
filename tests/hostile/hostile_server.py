"""A server whose every text is hostile: what a command may find on a port."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# Markup that crashes rich, a window title, colours (also by a control of Latin-1), a bell, text
# directions, a carriage return, and a second line.
HOSTILE = "[/x]owned\x1b]0;title\x07\x1b[31mred\x9b2J\u202e\u2066\r\nFORGED"
OBEYED = ("\x1b]", "\x1b[31mred", "\x07", "\x9b", "\u202e", "\u2066", "\u2028")
THEN = "2026-01-01T00:00:00Z"


def _session(number: int) -> dict[str, Any]:
    said = {"partial": True, "superseded": False, "id": 1, "tool_calls": [_CALL]}
    return {
        **{"id": f"sess{number}", "model": HOSTILE, "title": HOSTILE, "message_count": 1},
        **{"updated_at": THEN, "messages": [{"role": "user", "content": HOSTILE, **said}]},
    }


_CALL = {"function": {"name": HOSTILE, "arguments": HOSTILE}}
_INSTANCE = {
    **{"model": HOSTILE, "role": HOSTILE, "state": HOSTILE, "slots": {"busy": 0, "total": 1}},
    **{"queued": 0, "memory": {"measured_mb": 1, "estimated_mb": 1}, "pid": 1},
    **{"context_size": HOSTILE, "warnings": [HOSTILE], "progress": 0.5},
}
_USAGE = {"prompt_tokens": 1, "cached_tokens": 0, "completion_tokens": 2}
_EVENTS = (
    f": {HOSTILE.splitlines()[0]}",
    *(f"data: {json.dumps({name: HOSTILE, 'done': False})}" for name in ("thinking", "token")),
    f"data: {json.dumps({'done': True, 'warning': HOSTILE, 'usage': _USAGE})}",
)


class _Handler(BaseHTTPRequestHandler):
    models_dir: Path

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/":
            self._json({"name": "MyLLM", "status": "healthy"})
        elif path == "/api/instances":
            self._json({"instances": [_INSTANCE]})
        elif path == "/api/sessions":
            self._json({"sessions": [_session(1), _session(2)], "next_cursor": None})
        elif path.endswith("/export"):
            if "markdown" in self.path:
                self._send(HOSTILE.encode())
            else:
                self._json({"title": HOSTILE})
        elif path in ("/api/sessions/sess1", "/api/sessions/kept"):
            self._json(_session(1))
        elif path == "/api/logs/told":
            self._stream(f"data: {HOSTILE}")
        elif path == "/api/models/told":
            about = {"description": HOSTILE, "warnings": [HOSTILE], "template": HOSTILE}
            where = {"loaded": True, "path": str(self.models_dir / "told"), "chat": True}
            self._json({"name": HOSTILE, "family": HOSTILE, **about, **where})
        else:
            self._json({"detail": HOSTILE}, 404)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlsplit(self.path).path
        if path == "/api/chat":
            self._stream(*_EVENTS)
        elif path == "/api/sessions/import":
            self._json({"id": HOSTILE, "title": HOSTILE})
        elif path.endswith("/unload"):
            self._json({"detail": HOSTILE}, 500)
        else:
            self._json({"message": HOSTILE})

    def do_DELETE(self) -> None:
        self._json({"message": HOSTILE})

    def _stream(self, *events: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for event in events:
            self.wfile.write(f"{event}\n\n".encode())

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(json.dumps(value, ensure_ascii=False).encode(), status)

    def _send(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


@contextmanager
def hostile_server(models_dir: Path) -> Iterator[int]:
    """Serve on loopback until the block ends; yields the port."""

    class Handler(_Handler):
        pass

    Handler.models_dir = models_dir
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
