"""TLS: the certificate of a server, and how this machine's commands recognize it."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

import structlog

from myllm.errors import InvalidSettings
from myllm.settings import Settings

_log = structlog.get_logger(__name__)
_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_END: Final = "-----END CERTIFICATE-----"
_KEY_MARK: Final = "PRIVATE KEY-----"
_LARGEST: Final = 2**20


class Tls:
    """What a server needs to speak TLS. Raises InvalidSettings, as `reload` does."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self.certificate = certificate.absolute()
        self._key = key
        self.context = _context(certificate, key)
        self._newest = self.context
        self.context.sni_callback = self._use_newest

    @classmethod
    def of(cls, settings: Settings) -> Tls | None:
        """The TLS of a server with these settings; None if it speaks plain HTTP."""
        certificate, key = settings.tls_cert, settings.tls_key
        if certificate is None and key is None:
            return None
        if certificate is None or key is None:
            missing = "MYLLM_TLS_KEY" if key is None else "MYLLM_TLS_CERT"
            raise InvalidSettings(f"TLS needs a certificate and its key: set {missing}, too")
        return cls(certificate, key)

    def reload(self) -> None:
        """Read the files again, for connections from now on; if they cannot be used, the log says
        so and nothing changes."""
        try:
            self._newest = _context(self.certificate, self._key)
        except InvalidSettings as failure:
            _log.error("certificate not reloaded", cause=str(failure))
            return
        _log.info("certificate reloaded", file=str(self.certificate))

    def _use_newest(
        self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext
    ) -> None:
        """Let a new connection use the newest context. The one that listens stays as it was, since
        loading a certificate and its key into it could fail in between."""
        connection.context = self._newest


def trusting(certificate: Path) -> ssl.SSLContext:
    """Return how to connect to the server that has this certificate, whichever authority
    has signed it and whatever names are in it. Raises InvalidSettings."""
    text = _text("MYLLM_TLS_CERT", certificate, _BEGIN)
    # Only the server's own, which comes first: behind it, there may be that of an authority, whose
    # other certificates are not meant.
    begin, end = text.index(_BEGIN), text.find(_END)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=text[begin : end + len(_END)])
    except (ssl.SSLError, ValueError):
        raise InvalidSettings(f"{certificate}: there is no certificate in it") from None
    return context


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    _text("MYLLM_TLS_CERT", certificate, _BEGIN)
    _text("MYLLM_TLS_KEY", key, _KEY_MARK)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, _no_password)
    except _Encrypted:
        raise InvalidSettings(
            f"MYLLM_TLS_KEY: the key in {key} has a passphrase; 'openssl pkey' writes it without"
        ) from None
    except (ssl.SSLError, OSError) as failure:
        if getattr(failure, "reason", "") == "KEY_VALUES_MISMATCH":
            raise InvalidSettings(
                f"MYLLM_TLS_KEY: the key in {key} does not belong to the certificate in "
                f"{certificate}"
            ) from None
        raise InvalidSettings(
            f"MYLLM_TLS_CERT, MYLLM_TLS_KEY: {certificate} and {key} cannot be used: {failure}"
        ) from None
    return context


def _text(setting: str, path: Path, mark: str) -> str:
    """Return the text of a PEM file. Raises InvalidSettings unless it has the mark."""
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST).decode("latin-1")
    except OSError as failure:
        raise InvalidSettings(f"{setting}: cannot read {path}: {failure.strerror}") from None
    if mark not in text:
        wanted = "certificate" if mark == _BEGIN else "private key"
        raise InvalidSettings(f"{setting}: {path} has no {wanted} in PEM format")
    return text


class _Encrypted(Exception):
    """The key has a passphrase. OpenSSL would ask for it on the terminal."""


def _no_password() -> str:
    raise _Encrypted
