"""Requests that offer to go on in another protocol (`Upgrade: h2c`), as those of Java and .NET do.

A server may ignore the offer. But httptools stops behind the head of such a request and takes what
follows for the other protocol, although it is the body. So a new parser is given the request again,
without the offer.
"""

from __future__ import annotations

from collections.abc import Sequence

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def new_parser(protocol: HttpToolsProtocol) -> httptools.HttpRequestParser:
    """Return a parser that calls `protocol`, as lenient as the one with which uvicorn begins."""
    parser = httptools.HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


def head_without_offer(
    parser: httptools.HttpRequestParser, url: bytes, headers: Sequence[tuple[bytes, bytes]]
) -> bytes:
    """Return the head that `parser` has just read, without its `Upgrade` headers.

    Returns nothing if it has none: the parser also stops at CONNECT, which is an unknown method to
    the application.
    """
    kept = [b"%s: %s\r\n" % pair for pair in headers if pair[0] != b"upgrade"]
    if len(kept) == len(headers):
        return b""
    line = b"%s %s HTTP/%s\r\n" % (
        parser.get_method(),
        url,
        parser.get_http_version().encode(),
    )
    return b"".join([line, *kept, b"\r\n"])
