"""`myllm top`: devices, models, queues, rates and errors of a running server, live."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import httpx

    from myllm.cli.top_view import Seen

_REFRESH_S = 1.0
_MINUTE_STEPS = 12
_MOST_ROWS = 50
# Of the requests that failed without asking a model, such as with a wrong key: one client can send
# so many that nothing else is seen. The server keeps 200 of them besides those that asked a model.
_MOST_REFUSED = 3
_KEPT_REFUSED = 200
# In a pipe nothing has to fit, but rich wants a width.
_PIPE_WIDTH = 160


def top(ctx: typer.Context) -> None:
    """Watch devices, models, requests and errors of the running server; q or Ctrl+C leaves."""
    from myllm.cli.client import required_server
    from myllm.cli.common import console
    from myllm.cli.full_screen import full_screen
    from myllm.cli.top_view import frame

    with closing(required_server(ctx.obj.settings())) as server:
        out, look = console(), _Watch(server).look
        if not sys.stdout.isatty():
            out.width = _PIPE_WIDTH  # rich cuts off what is wider than its console
            out.print(frame(look(), _PIPE_WIDTH, None), soft_wrap=False)
            return
        with suppress(KeyboardInterrupt), full_screen(out) as screen:  # the usual end
            while True:
                screen.show(frame(look(), out.width, out.height))
                if screen.wait(_REFRESH_S).lower().startswith("q"):
                    return


class _Watch:
    """Asks the server for what a frame shows."""

    def __init__(self, server: httpx.Client) -> None:
        self._server = server
        self._may_see_history = True

    def look(self) -> Seen:
        from myllm.cli.top_view import Seen

        running = self._get("/api/instances")
        return Seen(
            str(self._server.base_url),
            self._get("/health"),
            running["instances"],
            running["memory"],
            self._history(),
            self._requests("running", _MOST_ROWS),
            few_refused(self._requests("failed", _KEPT_REFUSED + _MOST_ROWS))[:_MOST_ROWS],
        )

    def _get(self, path: str, **query: str | int) -> Any:
        from myllm.cli.client import answer_of

        return answer_of(self._server.get(path, params=query))

    def _requests(self, status: str, limit: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._get("/api/requests", status=status, limit=limit)[
            "requests"
        ]
        return found

    def _history(self) -> dict[str, Any] | None:
        """The last minute; None if the key may not see it, which is asked only once, since each
        refusal is a failed request."""
        from myllm.cli.client import answer_of

        if not self._may_see_history:
            return None
        answer = self._server.get("/api/history", params={"steps": _MINUTE_STEPS})
        if answer.status_code == 403:
            self._may_see_history = False
            return None
        history: dict[str, Any] = answer_of(answer)
        return history


def few_refused(failed: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The failed requests, newest first, with three at most of those that asked no model."""
    shown, refused = [], 0
    for one in failed:
        refused += one["model"] is None
        if one["model"] is not None or refused <= _MOST_REFUSED:
            shown.append(one)
    return shown
