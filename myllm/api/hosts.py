"""What the headers Host and Origin name."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^\s:/?#@\[\]]+)(?::(?P<port>[0-9]{1,5}))?")
_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<host>.+)")
# The same few names come with every request.
_KNOWN = 256
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
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


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
