"""How many files and sockets this process may open, and how many of them clients may use."""

from __future__ import annotations

import resource
from contextlib import suppress

# Reserved for the server itself (some 40), its store, and 3 pipes, a log and some sockets for each
# of a few engines. The share on top allows for more and busier engines where the limit is higher.
_OWN = 64
_OWN_SHARE = 8


def raise_limit() -> int:
    """Raise the soft limit of open files to the hard one; return the new limit.

    Child processes inherit it. That is safe for llama-server: it waits with poll(), which has no
    largest descriptor.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):  # macOS reports "unlimited", but refuses to set it
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return 2**30 if soft == resource.RLIM_INFINITY else soft


def for_clients(limit: int) -> int:
    """How many of `limit` open files may be connections of clients."""
    return max(limit - _OWN - limit // _OWN_SHARE, limit // 4)
