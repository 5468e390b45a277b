"""The HTTP client of the commands: it waits long, but not forever, and raises our own errors."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from myllm.errors import KeyRefused, ServeFailed

# The server sends something at least every five seconds of a stream.
SILENCE_S = 30.0
# For an answer in one piece, which may take long to generate.
WHOLE_S = 3600.0
_CONNECT_S = 5.0
_ERRNO = re.compile(r"\[Errno -?\d+\] ")


class PatientClient(httpx.Client):
    """Raises ServeFailed when the server stops, or sends nothing for `silence_s` seconds.

    `withheld` says why the server got no key; a 401 then raises it as KeyRefused.
    """

    withheld: str | None = None

    def __init__(
        self,
        base_url: str,
        transport: httpx.BaseTransport | None = None,
        silence_s: float = SILENCE_S,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        timeout = httpx.Timeout(silence_s, connect=_CONNECT_S)
        verify = True if tls is None else tls
        super().__init__(
            base_url=base_url, transport=transport, timeout=timeout, trust_env=False, verify=verify
        )

    def send(self, request: httpx.Request, **how: Any) -> httpx.Response:
        with _in_words(request):
            answer = super().send(request, **how)
        if answer.status_code == 401 and self.withheld is not None:
            answer.close()
            raise KeyRefused(self.withheld)
        return answer

    @contextmanager
    def stream(self, *what: Any, **how: Any) -> Iterator[httpx.Response]:
        with super().stream(*what, **how) as answer, _in_words(answer.request):
            yield answer


def no_server(address: str) -> ServeFailed:
    """The error of a command that needs a server when none accepts connections there."""
    return ServeFailed(f"no MyLLM server answers at {address}; start one with 'myllm serve'")


@contextmanager
def _in_words(request: httpx.Request) -> Iterator[None]:
    try:
        yield
    except httpx.ReadTimeout as failure:
        silence_s = request.extensions["timeout"]["read"]
        raise ServeFailed(f"the server has been silent for {silence_s:g} s") from failure
    except httpx.ConnectError as failure:
        raise no_server(str(request.url.copy_with(raw_path=b"/")).rstrip("/")) from failure
    except httpx.HTTPError as failure:
        reason = _ERRNO.sub("", str(failure)) or type(failure).__name__
        raise ServeFailed(f"the connection to the server broke: {reason}") from failure
