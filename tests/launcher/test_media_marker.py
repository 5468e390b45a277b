"""The marker that stands for a picture or a sound in a raw prompt."""

from __future__ import annotations

from myllm.launcher.media_marker import MEDIA_MARKER, with_marker


def test_the_documented_marker_is_replaced() -> None:
    assert with_marker("a <__media__> b") == f"a {MEDIA_MARKER} b"
    assert with_marker(f"a {MEDIA_MARKER} b") == f"a {MEDIA_MARKER} b"
    assert with_marker("a") == "a"


def test_two_markers_are_never_side_by_side() -> None:
    one = MEDIA_MARKER
    assert with_marker("<__media__>" * 3) == f"{one}\n{one}\n{one}"
    assert with_marker("<__media__> <__media__>") == f"{one} {one}"
