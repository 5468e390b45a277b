"""Parses the names in the headers Host and Origin."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^\s:/?#@\[\]]+)(?::(?P<port>[0-9]{1,5}))?")
_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<host>.+)")
# Most requests carry the same few names.
_KNOWN = 256
# The bits before the IPv4 address in an IPv6-mapped one.
_MAPPED_BITS = 96
_DEFAULT_PORTS = {"http": 80, "https": 443}


@lru_cache(_KNOWN)
def split_host(host: str) -> tuple[str, int | None]:
    """Return the name of `host`, lower case and without brackets, and its port.

    The name is empty when `host` is malformed.
    """
    found = _HOST.fullmatch(host)
    if found is None:
        return "", None
    name = found["name"].strip("[]").lower().removesuffix(".")
    return name, int(found["port"]) if found["port"] else None


@lru_cache(_KNOWN)
def is_loopback(name: str) -> bool:
    """Whether a host name or an address always means this machine."""
    try:
        return ipaddress.ip_address(unmapped(name)).is_loopback
    except ValueError:
        return name == "localhost"


@lru_cache(_KNOWN)
def unmapped(address: str) -> str:
    """Return the IPv4 address that `address` maps to IPv6, or else `address` itself.

    A socket that listens on `::` gives IPv4 clients addresses such as `::ffff:192.0.2.1`.
    """
    if ":" not in address:
        return address
    try:
        mapped = ipaddress.IPv6Address(address).ipv4_mapped
    except ValueError:
        return address
    return str(mapped) if mapped is not None else address


def trusted(networks: Sequence[Network]) -> list[str]:
    """Return `networks` for uvicorn, those of IPv4 also in their IPv6-mapped form."""
    mapped = [
        f"::ffff:{each.network_address}/{_MAPPED_BITS + each.prefixlen}"
        for each in networks
        if isinstance(each, ipaddress.IPv4Network)
    ]
    return [*map(str, networks), *mapped]


def is_from_elsewhere(sites: Sequence[str]) -> bool:
    """Whether a browser's Sec-Fetch-Site headers say that a page of another site made the request.

    Browsers send the header over TLS and to this machine; other clients do not. `none` means the
    address bar. `same-site`, another port or host of the same site, counts as another site.
    """
    return any(site not in ("same-origin", "none") for site in sites)


def is_same_origin(origin: str, host: str) -> bool:
    """Whether a page of `origin` came from `host`.

    A proxy that ends TLS hides the scheme, so only names and ports are compared; a missing port is
    the default of the origin's scheme.
    """
    found = _ORIGIN.fullmatch(origin)
    if found is None:
        return False
    default = _DEFAULT_PORTS[found["scheme"]]
    (name, port), (own_name, own_port) = split_host(found["host"]), split_host(host)
    return bool(name) and (name, port or default) == (own_name, own_port or default)
