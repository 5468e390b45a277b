"""Fetches pictures and sounds from the Internet, and from nowhere else.

A client names the address, so it must not lead into the networks that this machine can reach
and the client cannot. A name is resolved once, all its addresses are checked, and the connection
goes to one that was checked: a second look-up could say something else.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import re
import socket
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Final

import httpx

from myllm.errors import InvalidRequest
from myllm.gateway.media.parts import Elsewhere
from myllm.models.projector import Medium

_MAX_S: Final = 10.0
_MAX_REDIRECTS: Final = 3
# The only prefix of a translator to IPv4 that leads to the same places from everywhere (RFC 6052).
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
# All that is assigned to hosts on the Internet (RFC 4291): everything outside of it is local,
# reserved, or another way to write an IPv4 address.
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
# What lies within and yet leads elsewhere: tunnels, of which 2001::/23 has Teredo and 2002::/16 is
# 6to4, and examples in documents.
_NOT_HOSTS: Final = tuple(
    map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
)
# What some versions of Python take for global: protocol assignments, and relays of 6to4.
_NOT_HOSTS_4: Final = tuple(map(ipaddress.IPv4Network, ("192.0.0.0/24", "192.88.99.0/24")))


def is_public(address: str) -> bool:
    """Whether `address` is one of the Internet's, also if IPv4 is wrapped in IPv6."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        wrapped = ip.ipv4_mapped
        if ip in _NAT64:
            wrapped = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if wrapped is None:
            has_zone = ip.scope_id is not None
            return ip in _UNICAST and not has_zone and not any(ip in each for each in _NOT_HOSTS)
        ip = wrapped
    return ip.is_global and not ip.is_multicast and not any(ip in each for each in _NOT_HOSTS_4)


class RemoteMedia:
    """Fetches at most `most_bytes` for one request, from addresses that are `allowed`."""

    def __init__(self, most_bytes: int, allowed: Callable[[str], bool] = is_public) -> None:
        self._most_bytes = most_bytes
        self._allowed = allowed
        _certificates()
        # Of its own: a name server that is slow must not keep others from reading the disk.
        self._resolvers = ThreadPoolExecutor(2, "resolver")

    async def fill(self, wanted: Sequence[Elsewhere]) -> None:
        """Put everything that is wanted into its place, within 10 seconds: first what is needed,
        then the latest of the rest, which stays away when it is not allowed, or too much, or not of
        its medium. Raises InvalidRequest where that is so for what is needed."""
        left = self._most_bytes
        needed = [each for each in wanted if each.is_needed]
        others = [each for each in reversed(wanted) if not each.is_needed]
        try:
            async with asyncio.timeout(_MAX_S), _client() as client:
                for each in (*needed, *others):
                    try:
                        url = await self._fetch(client, each, left)
                    except InvalidRequest:
                        if each.is_needed:
                            raise
                        continue
                    left -= len(url)
                    each.place[each.name] = url
        except TimeoutError:
            if all(each.place for each in needed):
                return
            raise InvalidRequest(
                f"What is elsewhere cannot be fetched: it took longer than {_MAX_S:g} s"
            ) from None

    async def _fetch(self, client: httpx.AsyncClient, wanted: Elsewhere, left: int) -> str:
        """The `data:` URL of what is there."""
        try:
            return await self._follow(client, httpx.URL(wanted.url), wanted.medium, left)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as failure:
            raise _failure(wanted.url, str(failure) or type(failure).__name__) from failure

    async def _follow(
        self, client: httpx.AsyncClient, url: httpx.URL, medium: Medium, left: int
    ) -> str:
        for _ in range(_MAX_REDIRECTS + 1):
            if url.scheme not in ("http", "https") or not url.host:
                raise _failure(url, "it does not begin with http:// or https://")
            answer = await self._ask(client, url)
            try:
                if not answer.has_redirect_location:
                    return await _read(answer, url, medium, left)
                url = url.join(answer.headers["location"])
            finally:
                await answer.aclose()
        raise _failure(url, f"it is redirected more than {_MAX_REDIRECTS} times")

    async def _ask(self, client: httpx.AsyncClient, url: httpx.URL) -> httpx.Response:
        """The answer of the first checked address that can be reached, its body still unread."""
        for address in await self._addresses(url):
            request = client.build_request(
                "GET",
                url.copy_with(host=address),
                headers={"Host": url.netloc.decode("ascii")},
                extensions={"sni_hostname": url.raw_host.decode("ascii")},
            )
            try:
                return await client.send(request, stream=True)
            except httpx.ConnectError:
                continue
        raise _failure(url, "nothing can be reached there")

    async def _addresses(self, url: httpx.URL) -> list[str]:
        port = url.port or {"http": 80, "https": 443}[url.scheme]
        found = await asyncio.get_running_loop().run_in_executor(
            self._resolvers, _resolve, url.raw_host.decode("ascii").strip("[]"), port
        )
        if not all(map(self._allowed, found)):
            raise _failure(url, "it leads to an address that is not public")
        return found


async def _read(answer: httpx.Response, url: httpx.URL, medium: Medium, most_bytes: int) -> str:
    if answer.status_code != 200:
        raise _failure(url, f"the answer has status {answer.status_code}")
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not re.fullmatch(rf"{medium}/[\w.+-]+", kind):
        raise _failure(url, f"it is of type {kind or 'unknown'}, not {medium}/...")
    if answer.headers.get("content-encoding", "identity").lower() != "identity":
        raise _failure(url, "it comes compressed, which was not asked for")
    content = bytearray()
    async for chunk in answer.aiter_raw():
        content += chunk
        if len(content) > most_bytes:
            raise _failure(url, "it is larger than MYLLM_MAX_BODY_MB allows")
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@cache
def _certificates() -> ssl.SSLContext:
    """Read once, which takes a while."""
    return httpx.create_ssl_context(trust_env=False)


def _client() -> httpx.AsyncClient:
    """It knows no proxies, follows nothing by itself, and uses no connection twice: another name
    may lead to the same address."""
    return httpx.AsyncClient(
        trust_env=False,
        verify=_certificates(),
        timeout=_MAX_S,
        limits=httpx.Limits(max_keepalive_connections=0),
        headers={"Accept": "image/*, audio/*", "Accept-Encoding": "identity"},
    )


def _resolve(host: str, port: int) -> list[str]:
    """The addresses of a name; raises OSError when it has none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _failure(url: httpx.URL | str, why: str) -> InvalidRequest:
    shown = str(url)
    shown = shown if len(shown) <= 100 else f"{shown[:100]}..."
    return InvalidRequest(f"{shown} cannot be fetched: {why}")
