"""The settings of the network: where the server listens, who may ask it, and how much."""

from __future__ import annotations

from pydantic import Field, IPvAnyNetwork, SecretStr
from pydantic_settings import BaseSettings

from myllm.settings_types import FilePath, Listed, Origin, UrlPath


class NetworkSettings(BaseSettings):
    """The part of `Settings` that is about clients."""

    host: str = Field(
        "127.0.0.1",
        description="Address that `myllm serve` listens on; `0.0.0.0`: every IPv4 address of the "
        "machine, `::`: every IPv6 and IPv4 address.",
    )
    port: int = Field(8000, ge=0, le=65535, description="Port that `myllm serve` listens on.")
    allow_anonymous: bool = Field(
        False,
        description="Whether a server that other machines can reach may start without any API key; "
        "with keys, every request needs one all the same.",
    )
    admin_key: SecretStr | None = Field(
        None,
        description="A key with the role `admin` that needs no row in the store, such as for "
        "creating the first key; commands without `MYLLM_API_KEY` use it.",
    )
    admin_key_file: FilePath | None = Field(
        None, description="A file with that key instead, such as a secret of Docker or Kubernetes."
    )
    tls_cert: FilePath | None = Field(
        None,
        description="PEM file with the server's certificate, and those that it needs; with it and "
        "its key the server speaks HTTPS. Commands trust it, too.",
    )
    tls_key: FilePath | None = Field(
        None, description="PEM file with the key of that certificate, without a passphrase."
    )
    api_key: SecretStr | None = Field(
        None,
        description="Key that the command line sends to a running server, if `MYLLM_HOST` or "
        "`MYLLM_PORT` names it or it runs as the same user.",
    )
    allowed_hosts: Listed[str] = Field(
        (),
        description="Host names, separated by commas, that requests may use for the server besides "
        "localhost; default: on a loopback address none, elsewhere any.",
    )
    cors_origins: Listed[Origin] = Field(
        (),
        description="Origins of web pages, separated by commas, that may send requests besides the "
        "server's own; `*`: any. Patterns: `chrome-extension://*`, `https://*.example.com`, "
        "`http://localhost:*`.",
    )
    trusted_proxies: Listed[IPvAnyNetwork] = Field(
        (),
        description="Addresses or networks of proxies, separated by commas, whose "
        "`X-Forwarded-For` is trusted.",
    )
    root_path: UrlPath = Field(
        "",
        description="Path below which a proxy serves this server, such as `/llm`; its "
        "documentation page needs it.",
    )
    max_body_mb: float = Field(
        16.0, gt=0, description="Largest request body in MiB; a larger one is refused with 413."
    )
    max_bodies_mb: float | None = Field(
        None,
        gt=0,
        description="MiB that the bodies of all requests under way may have together; those of one "
        "key or address may have half of it; default: 512, or four times the largest body.",
    )
    max_connections: int = Field(
        4096,
        ge=1,
        description="Connections of clients at once; one more takes the place of an idle one, or "
        "is refused with 503. Fewer if the process may open so few files (`ulimit -n`) that "
        "engines and store would lack some.",
    )
    max_connections_per_address: int = Field(
        2048,
        ge=1,
        description="Connections of one address at once, trusted proxies excepted; never more "
        "than three quarters of all.",
    )
    header_timeout: float = Field(
        30.0, gt=0, description="Seconds a client may take to send the head of a request."
    )
    body_timeout: float = Field(
        60.0,
        gt=0,
        description="Seconds a client may take to send the next 64 KiB of a request's body, or "
        "the rest of it.",
    )
    idle_timeout: float = Field(
        75.0, gt=0, description="Seconds a connection is kept open between two requests."
    )
    remote_media: bool = Field(
        False,
        description="Whether pictures and sounds may be given as http(s) URLs, which the server "
        "then fetches, from public addresses only.",
    )
    capture_bodies: bool = Field(
        False,
        description="Whether the bodies of requests to models and of their answers are kept in "
        "memory for a while, where admins can read them: 64 KiB of each, 16 MiB of all.",
    )
