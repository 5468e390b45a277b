"""The header that names what of a request was left out."""

from __future__ import annotations

from myllm.gateway.conversation.ignored import HEADER, Ignored


def test_the_header_is_sent_only_when_something_is_left_out() -> None:
    ignored = Ignored()
    assert ignored.headers() == {}
    ignored.add("tools[0] (web_search)")
    assert ignored.headers() == {"X-MyLLM-Ignored": "tools[0] (web_search)"}


def test_many_names_are_counted_instead_of_listed() -> None:
    ignored = Ignored()
    for number in range(40):
        ignored.add(f"tools[{number}] (custom)")
    header = ignored.headers()[HEADER]
    assert header.startswith("tools[0] (custom), tools[1] (custom)")
    assert header.endswith("and 24 more")
    assert len(header) < 2000


def test_a_name_from_a_client_cannot_break_the_header() -> None:
    ignored = Ignored()
    ignored.add("tools[0] (a\r\nSet-Cookie: x, ü" + "y" * 500)
    header = ignored.headers()[HEADER]
    assert header.isascii()
    assert header.isprintable()
    assert "," not in header
    assert len(header) <= 120


def test_what_is_named_twice_is_listed_once() -> None:
    ignored = Ignored()
    for _ in range(20):
        ignored.add("tools[0] (custom)")
    ignored.add("tools[1] (custom)")
    assert ignored.headers()[HEADER] == "tools[0] (custom), tools[1] (custom)"
