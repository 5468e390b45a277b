"""Finding and asking a running server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from myllm.errors import InvalidRequest, KeyRefused, MyLLMError, NotFound, ServeFailed, Unavailable

if TYPE_CHECKING:
    import httpx

    from myllm.settings import Settings

_PROBE_S = 1.0
# What a server is reached by that listens on all addresses of this machine.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def base_url(settings: Settings) -> str:
    """Where a server with these settings is reached from this machine."""
    return url(_EVERYWHERE.get(settings.host, settings.host), settings.port)


def url(host: str, port: int) -> str:
    """The URL of `host`, which may be an IPv6 address."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def running_server(settings: Settings) -> httpx.Client | None:
    """A client of the server that runs with these settings, or None. The caller closes it."""
    from myllm.cli.patient import PatientClient

    client = PatientClient(base_url(settings))
    try:
        answer = client.get("/", timeout=_PROBE_S)
        if answer.json()["name"] == "MyLLM":
            client.headers.update(key_header(settings))
            return client
    except (ServeFailed, ValueError, KeyError, TypeError):
        pass  # nobody there, or somebody else
    client.close()
    return None


def key_header(settings: Settings) -> dict[str, str]:
    """Given to MyLLM alone, not to whatever else may listen there."""
    key = settings.api_key.get_secret_value().strip() if settings.api_key else ""
    if not key:
        return {}
    if not key.isascii() or not key.isprintable() or " " in key:
        raise KeyRefused("MYLLM_API_KEY has characters that no key has")
    return {"Authorization": f"Bearer {key}"}


def long_wait_s(settings: Settings) -> float:
    """What a request may take that loads or unloads a model."""
    return settings.queue_timeout + settings.load_timeout + settings.drain_grace


def required_server(settings: Settings) -> httpx.Client:
    """The same; raises ServeFailed when no server runs."""
    client = running_server(settings)
    if client is None:
        raise ServeFailed(
            f"no MyLLM server answers at {base_url(settings)}; start one with 'myllm serve'"
        )
    return client


def answer_of(answer: httpx.Response) -> Any:
    """The JSON of an answer; raises the error it tells."""
    if answer.is_success:
        return answer.json()
    raise error_of(answer.status_code, answer.text)


def error_of(status: int, text: str) -> MyLLMError:
    """The exception for an error answer."""
    import json

    try:
        detail = str(json.loads(text)["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"the server answered with status {status}"
    if status == 401:
        return KeyRefused(f"{detail}; set MYLLM_API_KEY to one that 'myllm key add NAME' has made")
    kinds: dict[int, type[MyLLMError]] = {400: InvalidRequest, 404: NotFound, 503: Unavailable}
    return kinds.get(status, MyLLMError)(detail)
