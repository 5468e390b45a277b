"""What the headers Host and Origin name."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^\s:/?#@\[\]]+)(?::(?P<port>[0-9]{1,5}))?")
_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<host>.+)")
# The same few names come with every request.
_KNOWN = 256
# In front of an IPv4 address that is mapped to IPv6.
_MAPPED_BITS = 96
_DEFAULT_PORTS = {"http": 80, "https": 443}


@lru_cache(_KNOWN)
def split_host(host: str) -> tuple[str, int | None]:
    """Name and port of `host`: lower case, without brackets; an empty name when malformed."""
    found = _HOST.fullmatch(host)
    if found is None:
        return "", None
    name = found["name"].strip("[]").lower().removesuffix(".")
    return name, int(found["port"]) if found["port"] else None


@lru_cache(_KNOWN)
def is_loopback(name: str) -> bool:
    """Whether a host name or an address means this machine and can mean no other."""
    try:
        return ipaddress.ip_address(unmapped(name)).is_loopback
    except ValueError:
        return name == "localhost"


@lru_cache(_KNOWN)
def unmapped(address: str) -> str:
    """`address`, or the IPv4 address that it maps to IPv6.

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
    """`networks` for uvicorn, with those of IPv4 also as they are mapped to IPv6."""
    mapped = [
        f"::ffff:{each.network_address}/{_MAPPED_BITS + each.prefixlen}"
        for each in networks
        if isinstance(each, ipaddress.IPv4Network)
    ]
    return [*map(str, networks), *mapped]


def is_from_elsewhere(sites: Sequence[str]) -> bool:
    """Whether a browser says by its Sec-Fetch-Site headers that another site's page made it ask.

    Browsers send it over TLS and to this machine; other clients do not. `none` is the address bar,
    and a page of the same site on another port or host is another page.
    """
    return any(site not in ("same-origin", "none") for site in sites)


def is_same_origin(origin: str, host: str) -> bool:
    """Whether a page of `origin` came from `host`.

    A proxy that ends TLS hides the scheme from us, so only names and ports are compared; a port
    that is not written is the one of the origin's scheme.
    """
    found = _ORIGIN.fullmatch(origin)
    if found is None:
        return False
    default = _DEFAULT_PORTS[found["scheme"]]
    (name, port), (own_name, own_port) = split_host(found["host"]), split_host(host)
    return bool(name) and (name, port or default) == (own_name, own_port or default)
