"""Endless heads, trailers and chunk framing, from clients that have not shown a key yet."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import pytest

from tests.hostile.attacks import others_are_served
from tests.hostile.raw import answer_to, connect, endless, head, to_the_end
from tests.serving import Serving, wait_until

_KIB = 2**10
_BEGUN = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
_CHUNKED = head("POST", "/api/chat", "Content-Type: application/json", "Transfer-Encoding: chunked")
_ATTACKS = {
    "one value": (431, endless(b"x", _BEGUN + b"X-Long: ")),
    "one name": (431, endless(b"x", _BEGUN)),
    "tiny headers": (431, endless(b"a:\r\n", _BEGUN)),
    "a path": (414, endless(b"x", b"GET /")),
    "a query": (414, endless(b"x=1&", b"GET /health?")),
    "empty lines before a request": (431, endless(b"\r\n")),
    "chunk extensions": (431, endless(b";x=y", _CHUNKED + b"1")),
    "chunk extensions of many chunks": (431, endless(b"1;" + b"x" * 90 + b"\r\n \r\n", _CHUNKED)),
    "trailers": (431, endless(b"a: b\r\n", _CHUNKED + b"2\r\n{}\r\n0\r\n")),
    "one trailer": (431, endless(b"x", _CHUNKED + b"2\r\n{}\r\n0\r\nX-Long: ")),
}


@pytest.fixture(autouse=True)
def others(server: Serving) -> Iterator[None]:
    """Check in every test of this file that other clients get `/health` and memory is freed."""
    with others_are_served(server):
        yield


@pytest.mark.parametrize("attack", _ATTACKS)
def test_endless_input_is_refused_before_it_fills_memory(server: Serving, attack: str) -> None:
    status, pieces = _ATTACKS[attack]
    received = answer_to(server, pieces)
    assert received.startswith(b"HTTP/1.1 %d " % status), received[:300]
    assert b"connection: close" in received
    assert b'{"detail":"' in received


def test_a_long_value_in_small_pieces_is_refused_too(server: Serving) -> None:
    pieces = itertools.chain([_BEGUN + b"X-Long: "], itertools.repeat(b"x" * 50))
    received = answer_to(server, pieces, total=80 * _KIB)
    assert received.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["X-Long: " + "x" * 65_000], 200),
        (["X-Long: " + "x" * 65_600], 431),
        ([f"X-{n}: 1" for n in range(250)], 200),
        ([f"X-{n}: 1" for n in range(260)], 431),
    ],
)
def test_large_heads_pass_and_larger_ones_do_not(
    server: Serving, lines: list[str], status: int
) -> None:
    received = answer_to(server, [head("GET", "/health", "Connection: close", *lines)])
    assert received.startswith(b"HTTP/1.1 %d " % status), received[:300]


def test_a_large_body_does_not_count_as_head(server: Serving) -> None:
    """Head and body arrive in one piece."""
    lines = ("Content-Type: application/json", "Content-Length: 300000", "Connection: close")
    received = answer_to(server, [head("POST", "/api/chat", *lines) + b" " * 300_000])
    assert received.startswith(b"HTTP/1.1 400 ")
    assert b"not valid JSON" in received


def test_chunks_of_one_byte_are_accepted(server: Serving) -> None:
    body = b'{"model": "nobody", "messages": [{"role": "user", "content": "%s"}]}' % (b"x" * 50_000)
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    whole = _CHUNKED.replace(b"Host:", b"Connection: close\r\nHost:") + chunks
    assert answer_to(server, [whole]).startswith(b"HTTP/1.1 404 ")


def test_a_trailer_does_not_count_as_header(server: Serving) -> None:
    """Proxies check headers, but pass trailers on unchecked."""
    begun = _CHUNKED.replace(b"Host:", b"Connection: close\r\nHost:")
    received = answer_to(server, [begun + b"2\r\n{}\r\n0\r\nX-Request-ID: from-a-trailer\r\n\r\n"])
    assert b" 400 " in received.splitlines()[0]
    assert b"from-a-trailer" not in received


def test_thousands_of_requests_in_one_piece(server: Serving) -> None:
    pieces: Iterable[bytes] = endless(head("GET", "/health"))
    answer_to(server, pieces, total=2**24)


def test_the_error_has_the_envelope_of_the_paths_dialect(server: Serving) -> None:
    received = answer_to(server, endless(b"x", b"POST /v1/chat/completions HTTP/1.1\r\nX-Long: "))
    assert b'{"error":{"message":"The headers are larger than 64 KiB"' in received


def test_bytes_that_are_not_http_get_a_400(server: Serving) -> None:
    received = answer_to(server, [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"])
    assert received.startswith(b"HTTP/1.1 400 ")


def test_a_running_answer_is_not_mixed_with_a_refusal(server: Serving) -> None:
    """The answer ends when its client sends invalid bytes."""
    asks = b'{"model": "demo", "prompt": "Count", "options": {"max_tokens": 400}}'
    lines = ("Content-Type: application/json", f"Content-Length: {len(asks)}")
    with connect(server) as client:
        client.sendall(head("POST", "/api/generate", *lines) + asks)
        assert client.recv(20).startswith(b"HTTP/1.1 200")
        client.sendall(b"no HTTP\r\n\r\n")
        received = to_the_end(client)
    assert b"400" not in received
    with server.client() as others:
        wait_until(lambda: others.get("/health").json()["active"] == 0, 10, "the slot is free")
