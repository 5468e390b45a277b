"""What is written to a client's connection, and in how many writes."""

from __future__ import annotations

import asyncio

from myllm.api.http.coalescing_transport import CoalescingTransport


class Sent(asyncio.Transport):
    """Records each write."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.pieces.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


def test_a_head_leaves_with_the_first_of_its_body() -> None:
    sent = Sent()
    transport = CoalescingTransport(sent)
    for _ in range(2):
        transport.hold()
        transport.write(b"head;")
        transport.write(b"one;")
        transport.write(b"two;")
    assert sent.pieces == [b"head;one;", b"two;"] * 2


def test_an_answer_without_a_body_and_one_that_is_cut_send_their_heads() -> None:
    for rest in ([b""], []):
        sent = Sent()
        transport = CoalescingTransport(sent)
        transport.hold()
        transport.write(b"head;")
        for piece in rest:
            transport.write(piece)
        transport.close()
        assert sent.pieces == [b"head;"]
        assert sent.closed


def test_an_answer_that_begins_twice_loses_nothing() -> None:
    sent = Sent()
    transport = CoalescingTransport(sent)
    for piece in (b"head;", b"again;"):
        transport.hold()
        transport.write(piece)
    transport.hold()
    transport.close()
    assert sent.pieces == [b"head;again;"]


def test_what_is_not_held_leaves_at_once() -> None:
    sent = Sent()
    transport = CoalescingTransport(sent)
    transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert sent.pieces == [b"HTTP/1.1 100 Continue\r\n\r\n"]
