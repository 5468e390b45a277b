"""A hub that sends more bytes than it has declared."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hub import Repo, serve_hub
from tests.models.test_pull import FILE, REPO, myllm, refused
from tests.toys import DEMO

pytestmark = pytest.mark.full  # a process for each pull

CONTENT = next(DEMO.glob("*.gguf")).read_bytes()
MUCH = 2**30
# What the sockets and the client's buffers can hold beyond the declared size.
BUFFERED = 2**26


@pytest.mark.parametrize("no_length", [False, True])
@pytest.mark.parametrize("declared", [0, 1000, len(CONTENT)])
def test_a_pull_stops_at_the_declared_size(home: Path, no_length: bool, declared: int) -> None:
    """With and without a Content-Length; no file is left."""
    with serve_hub() as hub:
        hub.repos[REPO] = Repo({FILE: CONTENT}, declared_size=declared)
        hub.more, hub.no_length = MUCH, no_length
        error = refused(home, hub, REPO)
        assert ("than the" in error) == (declared > 0)
        assert hub.poured < len(CONTENT) + BUFFERED
    assert not list((home / "models").rglob("*.part"))
    assert not list((home / "models").glob("[!.]*"))


def test_a_pull_works_without_a_content_length(home: Path) -> None:
    with serve_hub() as hub:
        hub.repos[REPO] = Repo({FILE: CONTENT})
        hub.no_length = True
        pulled = myllm(home, hub, "pull", REPO)
        assert pulled.returncode == 0, pulled.stderr
