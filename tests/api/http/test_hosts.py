"""Parsing of the headers Host and Origin."""

from __future__ import annotations

import pytest

from myllm.api.http.hosts import is_loopback, is_same_origin, split_host, unmapped


@pytest.mark.parametrize(
    ("host", "parts"),
    [
        ("localhost", ("localhost", None)),
        ("LocalHost.:8000", ("localhost", 8000)),
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:8000", ("::1", 8000)),
        ("[::1]", ("::1", None)),
        ("", ("", None)),
        ("a b", ("", None)),
        ("me@localhost", ("", None)),
        ("localhost/", ("", None)),
        ("localhost:8000:1", ("", None)),
        ("[::1", ("", None)),
    ],
)
def test_a_host_header_is_split(host: str, parts: tuple[str, int | None]) -> None:
    assert split_host(host) == parts


@pytest.mark.parametrize(
    "name", ["localhost", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "::FFFF:7f00:1"]
)
def test_loopback_names(name: str) -> None:
    assert is_loopback(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "0.0.0.0",
        "::",
        "10.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:0.0.0.0",
        "::127.0.0.1",
        "fe80::1%lo",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
    ],
)
def test_names_that_are_not_loopback(name: str) -> None:
    assert not is_loopback(name)


@pytest.mark.parametrize(
    ("address", "known_as"),
    [
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:201", "192.0.2.1"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::1", "::1"),
        ("unix:", "unix:"),
    ],
)
def test_a_mapped_ipv4_address_is_the_ipv4_address(address: str, known_as: str) -> None:
    assert unmapped(address) == known_as


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("http://localhost:8000", "localhost:8000", True),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("http://localhost:8000", "LOCALHOST:8000", True),
        ("https://ai.example", "ai.example", True),
        ("https://ai.example", "ai.example:443", True),
        ("http://ai.example", "ai.example:443", False),
        ("http://localhost:3000", "localhost:8000", False),
        ("http://localhost", "127.0.0.1", False),
        ("http://evil.example", "localhost", False),
        ("null", "localhost", False),
        ("null", "null", False),
        ("file://localhost", "localhost", False),
        ("http://localhost/x", "localhost", False),
        ("http://", "", False),
    ],
)
def test_an_origin_is_ours_by_name_and_port(origin: str, host: str, same: bool) -> None:
    assert is_same_origin(origin, host) is same
