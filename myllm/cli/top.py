"""`myllm top`: devices, models, queues, rates and errors of a running server, live."""

from __future__ import annotations

import sys
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import httpx

    from myllm.cli.top_view import Seen

_REFRESH_S = 1.0
_MINUTE_STEPS = 12
_MOST_ROWS = 50
# In a pipe nothing has to fit, but rich wants a width.
_PIPE_WIDTH = 160


def top(ctx: typer.Context) -> None:
    """Watch devices, models, requests and errors of the running server; q or Ctrl+C leaves."""
    from myllm.cli.client import required_server
    from myllm.cli.common import console
    from myllm.cli.full_screen import full_screen
    from myllm.cli.top_view import frame

    with closing(required_server(ctx.obj.settings())) as server:
        out = console()
        if not sys.stdout.isatty():
            shown = frame(_seen(server), _PIPE_WIDTH, None)
            out.print(shown, width=_PIPE_WIDTH, soft_wrap=False)
            return
        with suppress(KeyboardInterrupt), full_screen(out) as screen:  # the usual end
            while True:
                screen.show(frame(_seen(server), out.width, out.height))
                if screen.wait(_REFRESH_S).lower().startswith("q"):
                    return


def _seen(server: httpx.Client) -> Seen:
    from myllm.cli.client import answer_of
    from myllm.cli.top_view import Seen

    def requests(status: str) -> list[dict[str, Any]]:
        query = {"status": status, "limit": str(_MOST_ROWS)}
        found: list[dict[str, Any]] = answer_of(server.get("/api/requests", params=query))[
            "requests"
        ]
        return found

    running = answer_of(server.get("/api/instances"))
    # Only admins may see the history.
    history = server.get("/api/history", params={"steps": str(_MINUTE_STEPS)})
    return Seen(
        str(server.base_url),
        answer_of(server.get("/health")),
        running["instances"],
        running["memory"],
        None if history.status_code == 403 else answer_of(history),
        requests("running"),
        requests("failed"),
    )
