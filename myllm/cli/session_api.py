"""The routes about sessions, for the commands: of the running server, or without engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from myllm.cli.client import checked
from myllm.errors import InvalidRequest, NotFound
from myllm.escaping import on_one_line

if TYPE_CHECKING:
    import httpx

    from myllm.settings import Settings

_MIN_BEGINNING = 4
_MAX_CANDIDATES = 10
_PAGE = 500


class Api:
    """The routes about sessions; each call raises the exception for an error answer."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def get(self, path: str, **query: Any) -> httpx.Response:
        return checked(self._client.get(path, params=query))

    def delete(self, path: str) -> httpx.Response:
        return checked(self._client.delete(path))

    def post(self, path: str, content: bytes, media: str, **query: str) -> httpx.Response:
        headers = {"Content-Type": media}
        answer = self._client.post(path, content=content, headers=headers, params=query)
        return checked(answer)

    def of_one(self, named: str, ask: Callable[[str], httpx.Response]) -> httpx.Response:
        """The result of `ask` for the session `named`, by its id or the beginning of its id.

        Raises NotFound, or InvalidRequest, which lists the ids, if several begin so.
        """
        _check(named)
        try:
            return ask(named)
        except NotFound:
            if len(named) < _MIN_BEGINNING:
                raise
            candidates = [one for one in self._all() if one["id"].startswith(named)]
            if not candidates:
                raise
        if len(candidates) > 1:
            raise _ambiguous(named, candidates)
        return ask(candidates[0]["id"])

    def _all(self) -> Iterator[dict[str, Any]]:
        """The sessions of this client's key, page by page."""
        cursor = None
        while True:
            query = {"limit": _PAGE} | ({"cursor": cursor} if cursor else {})
            page = self.get("/api/sessions", **query).json()
            yield from page["sessions"]
            cursor = page["next_cursor"]
            if not cursor:
                return


def _ambiguous(named: str, candidates: list[dict[str, Any]]) -> InvalidRequest:
    lines = [f"  {one['id']}  {on_one_line(one['title'])}" for one in candidates[:_MAX_CANDIDATES]]
    if len(candidates) > len(lines):
        lines.append(f"  and {len(candidates) - len(lines)} more")
    several = f"the ids of {len(candidates)} sessions begin with '{named}'; give more of it:"
    return InvalidRequest("\n".join([several, *lines]))


@contextmanager
def session_api(settings: Settings) -> Iterator[Api]:
    """The running server, or else the routes about sessions, served for this command only."""
    from myllm.cli.temporary_server import store_for_command

    with store_for_command(settings) as client:
        yield Api(client)


def _check(session_id: str) -> None:
    """Check that the id cannot become another path. Raises InvalidRequest."""
    from myllm.sessions.store import check_id  # late: `myllm engine build` works without the store

    check_id(session_id)
