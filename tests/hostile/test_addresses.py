"""Addresses that the server must not fetch from, in every spelling."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from myllm.engine.engine import Engine
from myllm.errors import InvalidRequest
from myllm.gateway.media import fetch
from myllm.gateway.media.fetch import RemoteMedia, is_public
from myllm.gateway.media.parts import Elsewhere
from tests.ggufs import write_model
from tests.hostile.attacks import others_are_served
from tests.projectors import write_projector
from tests.serving import serving, short_home

INSIDE = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1"),
    *("169.254.169.254", "172.31.255.255", "192.0.0.1", "192.0.0.9", "192.0.2.1", "192.88.99.1"),
    *("192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1"),
    *("240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::127.0.0.1", "::8.8.8.8", "::a00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1"),
    *("::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1"),
    *("64:ff9b:1::7f00:1", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", "100::1", "2001::1"),
    *("2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:10::1", "2001:20::1", "2001:db8::1"),
    *("2002:7f00:1::", "2002:808:808::", "3fff::1", "4000::1", "5f00::1", "fc00::1", "fdff::1"),
    *("fe80::1", "fe80::1%eth0", "2600::1%eth0", "fec0::1", "feff::1", "ff02::1", "ff0e::1"),
    *("", "localhost", "127.1", "0x7f.1", "8.8.8.8/32", "1" * 5000),
]
OUTSIDE = [
    *("8.8.8.8", "1.1.1.1", "192.0.1.1", "100.63.255.255", "100.128.0.1", "172.32.0.1"),
    *("2600::1", "2a00:1450:4001::200e", "2001:4860:4860::8888", "2003::1"),
    *("64:ff9b::808:808", "::ffff:8.8.8.8"),
]
WAYS_TO_THIS_MACHINE = [
    *("127.0.0.1", "localhost", "2130706433", "0x7f.1", "0", "127.1", "[::]", "[::1]"),
    *("[::127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[fec0::1]"),
]


@pytest.mark.parametrize("address", INSIDE)
def test_inside(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", OUTSIDE)
def test_outside(address: str) -> None:
    assert is_public(address)


@contextmanager
def listening() -> Iterator[tuple[int, list[str]]]:
    """A service on this machine that the server must not contact; it records its visitors."""
    came: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, address = listener.accept()
                except OSError:
                    return
                came.append(str(address))
                connection.close()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1], came
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


async def test_a_name_that_resolves_to_another_address_the_second_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in DNS rebinding: the server connects to the address that it has checked."""
    answers = [["127.0.0.2"], ["127.0.0.1"]]  # the first stands for the Internet
    monkeypatch.setattr(fetch, "_resolve", lambda host, port: answers.pop(0))
    with listening() as (port, came):
        wanted = Elsewhere({}, "url", f"http://pictures.invalid:{port}/", "image")
        media = RemoteMedia(2**20, lambda address: address == "127.0.0.2")
        with pytest.raises(InvalidRequest, match="nothing can be reached there"):
            await media.fill([wanted])
    assert (answers, came) == ([["127.0.0.1"]], [])


def test_the_server_contacts_no_forbidden_address(engine: Engine) -> None:
    """Through the API, with the check of the real server."""
    with short_home() as home:
        write_model(home / "models" / "eye" / "eye.gguf")
        write_projector(home / "models" / "eye" / "mmproj-eye.gguf")
        with (
            listening() as (port, came),
            serving(home, remote_media=True) as server,
            server.client() as api,
        ):
            with others_are_served(server):
                for host in WAYS_TO_THIS_MACHINE:
                    url = f"http://{host}:{port}/picture.png"
                    part = {"type": "image_url", "image_url": {"url": url}}
                    body = {"model": "eye", "messages": [{"role": "user", "content": [part]}]}
                    refused = api.post("/v1/chat/completions", json=body)
                    assert refused.status_code == 400, host
                    assert "cannot be fetched" in refused.text
            assert came == []
