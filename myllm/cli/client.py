"""Finding a running server and sending requests to it."""

from __future__ import annotations

import time
from enum import Enum
from typing import TYPE_CHECKING, Any

from myllm.cli.common import say
from myllm.errors import (
    Conflict,
    InvalidRequest,
    InvalidSettings,
    KeyRefused,
    MyLLMError,
    NotFound,
    ServeFailed,
    Unavailable,
)

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    import httpx

    from myllm.settings import Settings

_PROBE_S = 1.0
_PROBE_AGAIN_S = 5.0
_PAUSE_S = 0.2
# Longer than any start, and than an orderly stop takes by default.
_NOT_READY_S = 60.0
# How to reach a server that listens on all addresses of this machine.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def base_url(settings: Settings) -> str:
    """The URL by which this machine reaches a server with these settings."""
    scheme = "http" if certificate_of(settings) is None else "https"
    return url(_EVERYWHERE.get(settings.host, settings.host), settings.port, scheme)


def url(host: str, port: int, scheme: str = "http") -> str:
    """The URL of `host`, which may be an IPv6 address."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def certificate_of(settings: Settings) -> Path | None:
    """The certificate of the server with these settings; None if it speaks plain HTTP.

    A server of this user notes its certificate; that of another one must be in MYLLM_TLS_CERT.
    """
    from myllm.running_servers import noted_certificate

    host = _EVERYWHERE.get(settings.host, settings.host)
    return settings.tls_cert or noted_certificate(settings.state_dir, host, settings.port)


class _State(Enum):
    """The state of the server at an address. The texts complete "the server at URL …"."""

    ABSENT = "is not running, or is not MyLLM"
    SILENT = "does not answer"
    STARTING = "is starting"
    STOPPING = "is stopping"
    READY = "is ready"


def running_server(settings: Settings, *, to_generate: bool = False) -> httpx.Client | None:
    """A client of the server that runs with these settings, or None. The caller closes it.

    If a server runs but cannot answer yet, this waits for it, and says so on stderr; with
    `to_generate` it also waits for the end of a server that is stopping. Raises ServeFailed when
    that takes longer than a minute.
    """
    from myllm.cli.http_client import PatientClient

    address = base_url(settings)
    client = PatientClient(address, tls=tls_to(settings))
    try:
        state = _look(client, _PROBE_S)
        passed = {_State.ABSENT, _State.READY, *(() if to_generate else (_State.STOPPING,))}
        if state not in passed:
            state = _wait_for(client, address, state, passed)
        if state is not _State.ABSENT:
            client.headers.update(key_header(settings))
            if not may_see_key(settings):
                client.withheld = (
                    f"the server at {address} requires a key, and nothing shows that it is yours, "
                    "so MYLLM_API_KEY was not sent; if it is yours, name its address with "
                    "MYLLM_HOST or MYLLM_PORT"
                )
            return client
    except BaseException:
        client.close()
        raise
    client.close()
    return None


def _wait_for(client: httpx.Client, address: str, state: _State, passed: set[_State]) -> _State:
    """Poll until the state is one of `passed`; raises ServeFailed after a minute."""
    text = f"The server at {address} {state.value}; waiting for it, {_NOT_READY_S:g} s at most ..."
    say(text, stderr=True, flush=True)
    give_up = time.monotonic() + _NOT_READY_S
    while state not in passed:
        if time.monotonic() > give_up:
            raise ServeFailed(
                f"the server at {address} {state.value}, also not after {_NOT_READY_S:g} s; end it "
                "if it hangs, or set MYLLM_PORT to a port where nothing listens"
            )
        time.sleep(_PAUSE_S)
        state = _look(client, _PROBE_AGAIN_S)
    return state


def _look(client: httpx.Client, timeout_s: float) -> _State:
    import httpx

    try:
        answer = client.get("/", timeout=timeout_s)
        about = answer.json()
        if answer.status_code == 503 and "detail" in about:
            return _State.STARTING
        if about["name"] != "MyLLM":
            return _State.ABSENT
        return _State.STOPPING if about["status"] == "draining" else _State.READY
    except ServeFailed as failure:
        # The connection was accepted, or not even refused, but no answer came.
        silent = isinstance(failure.__cause__, httpx.TimeoutException)
        return _State.SILENT if silent else _State.ABSENT
    except (ValueError, KeyError, TypeError):
        return _State.ABSENT


def may_see_key(settings: Settings) -> bool:
    """Whether the user has named this server, or it runs as the user. True without a key, since
    there is nothing to protect."""
    if not own_key(settings) or settings.model_fields_set & {"host", "port"}:
        return True
    from myllm.running_servers import is_own

    host = _EVERYWHERE.get(settings.host, settings.host)
    return is_own(settings.state_dir, host, settings.port)


def own_key(settings: Settings) -> str:
    """The key of this user: MYLLM_API_KEY, or else the admin key, which the commands that run next
    to the server, such as in its container, have as well. Empty if there is none.

    Raises InvalidSettings when the file of the admin key cannot be read.
    """
    for secret in (settings.api_key, settings.admin_key):
        if secret is not None:
            return secret.get_secret_value().strip()
    file = settings.admin_key_file
    if file is None:
        return ""
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as failure:
        raise InvalidSettings(f"MYLLM_ADMIN_KEY_FILE {file} cannot be read: {failure}") from None


def key_header(settings: Settings) -> dict[str, str]:
    """The header with the key; empty unless this server may see the key."""
    key = own_key(settings)
    if not key or not may_see_key(settings):
        return {}
    if not key.isascii() or not key.isprintable() or " " in key:
        raise KeyRefused("MYLLM_API_KEY has characters that no key has")
    return {"Authorization": f"Bearer {key}"}


def tls_to(settings: Settings) -> ssl.SSLContext | None:
    """How to connect to the server with these settings, which then is the one that has its
    certificate; None if it speaks plain HTTP. Raises InvalidSettings."""
    certificate = certificate_of(settings)
    if certificate is None:
        return None
    from myllm.tls import trusting

    return trusting(certificate)


def long_wait_s(settings: Settings) -> float:
    """The timeout of a request that loads or unloads a model."""
    return settings.queue_timeout + settings.load_timeout + settings.drain_grace


def required_server(settings: Settings) -> httpx.Client:
    """Like `running_server`, but raises ServeFailed when no server runs."""
    from myllm.cli.http_client import no_server

    client = running_server(settings)
    if client is None:
        raise no_server(base_url(settings))
    return client


def answer_of(answer: httpx.Response) -> Any:
    """The JSON of an answer; raises the exception for an error answer."""
    return checked(answer).json()


def checked(answer: httpx.Response) -> httpx.Response:
    """The answer itself; raises the exception for an error answer."""
    if answer.is_success:
        return answer
    raise error_of(answer.status_code, answer.text)


def error_of(status: int, text: str) -> MyLLMError:
    """The exception for an error answer."""
    import json

    try:
        detail = str(json.loads(text)["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"the server answered with status {status}"
    if status == 401:
        return KeyRefused(f"{detail}; set MYLLM_API_KEY to one that 'myllm key create' has made")
    kinds: dict[int, type[MyLLMError]] = {
        400: InvalidRequest,
        404: NotFound,
        409: Conflict,
        503: Unavailable,
    }
    return kinds.get(status, MyLLMError)(detail)
