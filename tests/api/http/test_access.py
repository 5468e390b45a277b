"""Hosts, origins and addresses behind proxies, through a real server on a socket."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import httpx
import pytest

from myllm.api.http.access import may_name_traces
from myllm.engine.engine import Engine
from myllm.gateway.client import Client
from tests.api.credentials import ANN, APP, BOB, PROXY, bearer, port_of
from tests.api.events import detail
from tests.serving import Serving, serving, wait_until

EVIL = "http://evil.example"

# Hosts


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:8000", "LOCALHOST:9"])
def test_loopback_names_are_answered(api: httpx.Client, host: str) -> None:
    assert api.get("/api/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "0.0.0.0:8000", "a b", ""])
@pytest.mark.parametrize("path", ["/api/models", "/health", "/docs"])
def test_a_name_that_was_bent_to_this_machine_is_refused(
    api: httpx.Client, host: str, path: str
) -> None:
    # As a browser does for a page of evil.example whose address now is 127.0.0.1.
    refused = api.get(path, headers={"Host": host, "Origin": f"http://{host}"})
    assert "MYLLM_ALLOWED_HOSTS" in detail(refused, 403)
    assert refused.headers["x-request-id"]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /health HTTP/1.1\r\n", b"403"),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n", b"403"),
        (b"GET /health HTTP/1.0\r\n", b"200"),
    ],
)
def test_a_request_without_one_host(server: Serving, head: bytes, status: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port_of(server)), timeout=20) as connection:
        connection.sendall(head + b"Connection: close\r\n\r\n")
        assert connection.makefile("rb").readline().split()[1] == status


def test_a_proxys_name_is_answered_when_it_is_allowed(door: httpx.Client) -> None:
    for host, status in (("ai.example", 200), ("AI.example:8443", 200), ("x.ai.example", 403)):
        answer = door.get("/api/models", headers=bearer(ANN) | {"Host": host})
        assert answer.status_code == status


def test_a_server_for_all_is_called_by_any_name_and_warns(engine: Engine, home: Path) -> None:
    allowed = {"host": "0.0.0.0", "allow_anonymous": True}
    with serving(home, **allowed) as server, server.client() as api:
        assert server.url == f"http://0.0.0.0:{port_of(server)}"
        assert server.process.stdout is not None
        _, example = (server.process.stdout.readline() for _ in range(2))
        assert f"curl http://127.0.0.1:{port_of(server)}/" in example
        answer = api.get("/api/models", headers={"Host": "box.example"})
        assert answer.status_code == 200
        [warning] = [line for line in server.log.splitlines() if line.startswith("warning: ")]
        assert "delete them" in warning
        assert "myllm key create" in warning


def test_allowed_hosts_count_on_every_address(engine: Engine, home: Path) -> None:
    # As in a container whose port is published to its machine alone.
    settings = {"host": "0.0.0.0", "allow_anonymous": True, "allowed_hosts": "localhost,myllm"}
    with serving(home, **settings) as server, server.client() as api:
        for host, status in (("myllm:8000", 200), ("127.0.0.1:8000", 200), ("evil.example", 403)):
            assert api.get("/health", headers={"Host": host}).status_code == status


# Origins


@pytest.mark.parametrize("origin", [EVIL, "null", "http://127.0.0.1:1", "chrome-extension://abc"])
def test_a_cross_site_post_does_nothing(api: httpx.Client, server: Serving, origin: str) -> None:
    # text/plain needs no preflight, so a browser sends it at once.
    headers = {"Origin": origin, "Content-Type": "text/plain", "Sec-Fetch-Site": "cross-site"}
    refused = api.post("/api/models/demo/load", headers=headers)
    assert "MYLLM_CORS_ORIGINS" in detail(refused, 403)
    assert "access-control-allow-origin" not in refused.headers
    assert server.engines() == []


def test_the_servers_own_pages_may_send_requests(api: httpx.Client, server: Serving) -> None:
    for own in (server.url, server.url.replace("127.0.0.1", "localhost")):
        headers = {"Origin": own, "Host": own.removeprefix("http://")}
        assert api.get("/api/models", headers=headers).status_code == 200


PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, content-type",
}


def test_an_allowed_page_may_send_requests_with_a_key(door: httpx.Client) -> None:
    asked = door.options("/api/chat", headers=PREFLIGHT | {"Origin": APP})
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == APP
    assert "authorization" in asked.headers["access-control-allow-headers"]
    answer = door.get("/api/models", headers=bearer(ANN) | {"Origin": APP})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == APP
    assert "X-Request-ID" in answer.headers["access-control-expose-headers"]


def test_an_allowed_page_may_reach_a_private_network(door: httpx.Client) -> None:
    asked = PREFLIGHT | {"Access-Control-Request-Private-Network": "true"}
    allowed = door.options("/api/chat", headers=asked | {"Origin": APP})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-private-network"] == "true"
    assert allowed.headers["access-control-allow-origin"] == APP
    refused = door.options("/api/chat", headers=asked | {"Origin": EVIL})
    assert refused.status_code == 403
    assert "access-control-allow-private-network" not in refused.headers


def test_pages_that_match_a_pattern_may_send_requests(engine: Engine, home: Path) -> None:
    patterns = "chrome-extension://*, http://localhost:*"
    with serving(home, cors_origins=patterns) as server, server.client() as api:
        for origin in ("chrome-extension://abcdef", "http://localhost:5173"):
            answer = api.get("/api/models", headers={"Origin": origin})
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == origin
            assert api.options("/api/chat", headers=PREFLIGHT | {"Origin": origin}).is_success
        for origin in ("moz-extension://abcdef", "http://localhost.evil.example:1", "null"):
            assert api.get("/api/models", headers={"Origin": origin}).status_code == 403


def test_an_allowed_page_can_read_why_it_was_refused(door: httpx.Client) -> None:
    refused = door.get("/api/models", headers={"Origin": APP})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == APP


def test_other_pages_may_not_even_with_a_key(door: httpx.Client) -> None:
    assert door.options("/api/chat", headers=PREFLIGHT | {"Origin": EVIL}).status_code == 403
    refused = door.get("/api/models", headers=bearer(ANN) | {"Origin": EVIL})
    assert EVIL in detail(refused, 403)
    assert "access-control-allow-origin" not in refused.headers


# Addresses


def asked_from(server: Serving, own_address: str, forwarded: list[str]) -> str:
    """Return the client's address in the log, for a request from `own_address`."""
    transport = httpx.HTTPTransport(local_address=own_address)
    headers = [("X-Forwarded-For", each) for each in forwarded]
    with httpx.Client(base_url=server.url, transport=transport, timeout=20) as client:
        request_id = client.get("/", headers=headers).headers["x-request-id"]
    wait_until(lambda: request_id in server.log, 10, "the request's line")
    [line] = [line for line in server.log.splitlines() if request_id in line]
    return str(json.loads(line)["client"])


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ([], PROXY),
        (["203.0.113.9"], "203.0.113.9"),
        (["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
        (["198.51.100.1, 203.0.113.9, 10.1.2.3"], "203.0.113.9"),
        (["198.51.100.1", "203.0.113.9"], "203.0.113.9"),
        (["2001:db8::9, 10.1.2.3"], "2001:db8::9"),
        (["203.0.113.9:4711"], "203.0.113.9"),
    ],
)
def test_a_trusted_proxy_names_the_client(
    locked: Serving, forwarded: list[str], client: str
) -> None:
    assert asked_from(locked, PROXY, forwarded) == client


def test_forwarded_addresses_of_other_peers_are_ignored(locked: Serving, server: Serving) -> None:
    assert asked_from(locked, "127.0.0.3", ["203.0.113.9"]) == "127.0.0.3"
    # Without the setting not even this machine itself is believed.
    assert asked_from(server, "127.0.0.1", ["203.0.113.9"]) == "127.0.0.1"


@pytest.mark.needs_ipv6
@pytest.mark.parametrize("proxies", ["", "127.0.0.0/8, ::1"])
def test_a_server_on_all_addresses_of_ipv6_also_serves_ipv4(
    engine: Engine, home: Path, proxies: str
) -> None:
    with serving(home, host="::", allow_anonymous=True, trusted_proxies=proxies) as server:
        assert server.url == f"http://[::]:{port_of(server)}"
        assert server.process.stdout is not None
        _, example = (server.process.stdout.readline() for _ in range(2))
        assert f"curl 'http://[::1]:{port_of(server)}/" in example
        for host, address in (("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")):
            server.url = f"http://{host}:{port_of(server)}"
            expected = "203.0.113.9" if proxies else address
            for forwarded in ("203.0.113.9", "::ffff:203.0.113.9"):
                assert asked_from(server, address, [forwarded]) == expected


@pytest.mark.needs_ipv6
def test_a_server_on_the_loopback_address_of_ipv6(engine: Engine, home: Path) -> None:
    with serving(home, host="::1") as server, server.client() as api:
        assert server.url == f"http://[::1]:{port_of(server)}"
        for host, status in (("[::1]", 200), ("[::ffff:127.0.0.1]", 200), ("evil.example", 403)):
            assert api.get("/health", headers={"Host": host}).status_code == status


# Traces

OWN, ADMIN = (Client("key:x", "x", "x", role=role) for role in ("user", "admin"))


@pytest.mark.parametrize(
    ("peer", "client", "may"),
    [
        (("203.0.113.9", 4711), OWN, False),
        (("203.0.113.9", 4711), None, False),
        (("203.0.113.9", 4711), ADMIN, True),
        (("203.0.113.9", 0), OWN, True),  # as a trusted proxy has forwarded it
        (("127.0.0.1", 4711), OWN, True),
        (("::1", 4711), OWN, True),
        (None, OWN, False),
    ],
)
def test_who_may_say_which_trace_its_requests_belong_to(
    peer: tuple[str, int] | None, client: Client | None, may: bool
) -> None:
    assert may_name_traces({"type": "http", "client": peer}, client) is may


def test_a_trusted_proxy_passes_a_trace_on(locked: Serving) -> None:
    headers = {"X-Forwarded-For": "203.0.113.9", "traceparent": f"00-{'7' * 32}-{'1' * 16}-01"}
    transport = httpx.HTTPTransport(local_address=PROXY)
    with httpx.Client(base_url=locked.url, transport=transport) as client:
        assert client.get("/api/models", headers=headers | bearer(BOB)).status_code == 200
    [line] = [line for line in locked.log.splitlines() if "7" * 32 in line]
    assert json.loads(line)["client"] == "bob"
