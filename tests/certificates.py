"""Certificates for tests, made by openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Pair:
    """A self-signed certificate and its key, in PEM files."""

    certificate: Path
    key: Path

    @property
    def settings(self) -> dict[str, object]:
        return {"tls_cert": self.certificate, "tls_key": self.key}


def self_signed(folder: Path, name: str = "server.example", *more: str) -> Pair:
    """Make a certificate for `name`, in files that are called so; `more` are openssl's options."""
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-subj", f"/CN={name}", "-days", "7", "-out", str(pair.certificate)]
    command += ["-keyout", str(pair.key), *(more or ("-noenc",))]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return pair
