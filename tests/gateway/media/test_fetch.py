"""What is fetched from elsewhere, and from where nothing is.

A server on this machine stands for the Internet: the check of addresses lets it through, where a
test says so, and nothing else that is not public.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from myllm.errors import InvalidRequest
from myllm.gateway.media import fetch as remote
from myllm.gateway.media.fetch import RemoteMedia, is_public
from myllm.gateway.media.parts import Elsewhere
from myllm.models.projector import Medium
from tests.projectors import data_url, png, wav

PICTURE, SOUND = png(255, 0, 0), wav(440)
SERVER = "127.0.0.1"


class Handler(BaseHTTPRequestHandler):
    """`/to/URL` redirects there; other paths are files, of the type that their name says."""

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers))  # type: ignore[attr-defined]
        if self.path.startswith("/to/"):
            self._answer(302, "text/plain", b"", Location=self.path.removeprefix("/to/"))
        elif self.path.startswith("/loop"):
            self._answer(302, "text/plain", b"", Location=f"{self.path}o")
        elif self.path == "/sound":
            self._answer(200, "audio/wav", SOUND)
        elif self.path == "/page":
            self._answer(200, "text/html", b"<img>")
        elif self.path == "/zipped":
            self._answer(200, "image/png", PICTURE, **{"Content-Encoding": "gzip"})
        elif self.path == "/large":
            self._answer(200, "image/png", bytes(2**20 + 1))
        elif self.path == "/slow":
            self.server.leave.wait(20)  # type: ignore[attr-defined]
        elif self.path == "/picture":
            self._answer(200, "Image/PNG; q=1", PICTURE)
        else:
            self._answer(404, "image/png", PICTURE)

    def _answer(self, status: int, kind: str, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": kind} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Internet(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__((SERVER, 0), Handler)
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.leave = threading.Event()

    def url(self, path: str, host: str = SERVER) -> str:
        return f"http://{host}:{self.server_port}{path}"


@pytest.fixture
def internet() -> Iterator[Internet]:
    server = Internet()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.leave.set()
    server.shutdown()
    thread.join()
    server.server_close()


def allowed(address: str) -> bool:
    return address == SERVER or is_public(address)


async def fetch(url: str, medium: Medium = "image", most_bytes: int = 2**20) -> str:
    place: dict[str, str] = {}
    await RemoteMedia(most_bytes, allowed).fill([Elsewhere(place, "url", url, medium)])
    return place["url"]


async def refusal(url: str, medium: Medium = "image") -> str:
    with pytest.raises(InvalidRequest) as refused:
        await fetch(url, medium)
    return refused.value.detail


async def test_pictures_and_sounds_become_data_urls(internet: Internet) -> None:
    assert await fetch(internet.url("/picture")) == data_url(PICTURE, "image/png")
    assert await fetch(internet.url("/sound"), "audio") == data_url(SOUND, "audio/wav")


async def test_a_name_is_asked_by_its_name_and_connected_by_its_address(
    internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the name looked up again for the connection, nothing would be found."""
    monkeypatch.setattr(remote, "_resolve", lambda host, port: [SERVER])
    url = internet.url("/picture", host="pictures.invalid")
    assert await fetch(url) == data_url(PICTURE, "image/png")
    [(_, headers)] = internet.asked
    assert headers["Host"] == f"pictures.invalid:{internet.server_port}"


async def test_redirects_are_followed_three_times(internet: Internet) -> None:
    target = internet.url("/picture")
    for _ in range(3):
        target = internet.url(f"/to/{target}")
    assert await fetch(target) == data_url(PICTURE, "image/png")
    assert "redirected more than 3 times" in await refusal(internet.url(f"/to/{target}"))
    assert "redirected more than 3 times" in await refusal(internet.url("/loop"))
    assert await fetch(internet.url("/to//picture")) == data_url(PICTURE, "image/png")


PRIVATE = [
    "127.0.0.2",
    "[::1]",
    "[::ffff:127.0.0.2]",
    "[64:ff9b::7f00:2]",
    "[2002:7f00:2::]",
    "[fe80::1]",
    "[fd00::1]",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.0.1",
    "169.254.169.254",
    "100.64.0.1",
    "224.0.0.1",
    "2130706434",  # 127.0.0.2, as C libraries read it
    "0x7f.2",
]


@pytest.mark.parametrize("host", PRIVATE)
async def test_nothing_is_fetched_from_addresses_that_are_not_public(
    internet: Internet, host: str
) -> None:
    inside = internet.url("/picture", host=host)
    assert "an address that is not public" in await refusal(inside)
    assert internet.asked == []
    assert "an address that is not public" in await refusal(internet.url(f"/to/{inside}"))
    assert len(internet.asked) == 1


@pytest.mark.parametrize("address", ["127.0.0.2", "::1", "10.1.2.3", "169.254.0.1", "fe80::1%1"])
async def test_names_that_lead_to_such_addresses_are_refused(
    internet: Internet, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if only one of a name's addresses is such."""
    monkeypatch.setattr(remote, "_resolve", lambda host, port: [SERVER, address])
    url = internet.url("/picture", host="pictures.invalid")
    assert "an address that is not public" in await refusal(url)
    assert internet.asked == []


async def test_by_itself_this_machine_is_refused(internet: Internet) -> None:
    """The check that is used in earnest, with a name that the system resolves."""
    place: dict[str, str] = {}
    for host in (SERVER, "localhost"):
        wanted = Elsewhere(place, "url", internet.url("/picture", host), "image")
        with pytest.raises(InvalidRequest, match="not public"):
            await RemoteMedia(2**20).fill([wanted])
    assert (internet.asked, place) == ([], {})


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/page", "of type text/html, not image/..."),
        ("/sound", "of type audio/wav, not image/..."),
        ("/none", "has status 404"),
        ("/zipped", "comes compressed"),
        ("/large", "larger than MYLLM_MAX_BODY_MB allows"),
        ("/to/file:///etc/passwd", "does not begin with http"),
        ("/to/ftp://127.0.0.1/x", "does not begin with http"),
    ],
)
async def test_what_is_not_taken(internet: Internet, path: str, why: str) -> None:
    assert why in await refusal(internet.url(path))


async def test_all_that_a_request_wants_counts_together(internet: Internet) -> None:
    wanted = [Elsewhere({}, "url", internet.url("/picture"), "image") for _ in range(3)]
    url = data_url(PICTURE, "image/png")
    with pytest.raises(InvalidRequest, match="larger than"):
        await RemoteMedia(len(url) + len(PICTURE), allowed).fill(wanted)
    assert [each.place for each in wanted] == [{"url": url}, {"url": url}, {}]


async def test_a_slow_server_is_not_waited_for(
    internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_MAX_S", 0.3)
    assert "took longer than 0.3 s" in await refusal(internet.url("/slow"))


async def test_what_is_no_address_and_where_nobody_is(internet: Internet) -> None:
    internet.shutdown()
    internet.server_close()
    assert "nothing can be reached there" in await refusal(internet.url("/picture"))
    for url in ("http://", "http://[::1", "http://a b/", "http://x.invalid:99999/"):
        assert "cannot be fetched" in await refusal(url)


async def test_what_is_not_needed_may_stay_away(internet: Internet) -> None:
    paths = ["/none", "/picture", "/page", "/large", "/to/http://127.0.0.2/x.png"]
    wanted = [Elsewhere({}, "url", internet.url(path), "image", False) for path in paths]
    url = data_url(PICTURE, "image/png")
    needed = Elsewhere({}, "url", internet.url("/picture"), "image")
    await RemoteMedia(2**20, allowed).fill([*wanted, needed])
    assert [each.place for each in (*wanted, needed)] == [
        {},
        {"url": url},
        {},
        {},
        {},
        {"url": url},
    ]


async def test_what_is_needed_gets_the_time_and_the_bytes_first(
    internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_MAX_S", 2.0)
    url = data_url(PICTURE, "image/png")

    def wanted(path: str, is_needed: bool) -> Elsewhere:
        return Elsewhere({}, "url", internet.url(path), "image", is_needed)

    slow = [wanted("/picture", False), wanted("/slow", False), wanted("/picture", True)]
    await RemoteMedia(2**20, allowed).fill(slow)
    assert [each.place for each in slow] == [{}, {}, {"url": url}]
    large = [wanted("/picture", False), wanted("/picture", False), wanted("/picture", True)]
    await RemoteMedia(len(url) + len(PICTURE), allowed).fill(large)
    assert [each.place for each in large] == [{}, {"url": url}, {"url": url}]
