"""HTTPS: from a real server to real clients, and certificates that cannot be used."""

from __future__ import annotations

import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from myllm import tls as tls_module
from myllm.engine.engine import Engine
from myllm.errors import InvalidSettings
from myllm.settings import load_settings
from myllm.tls import Tls, trusting
from tests.api.credentials import ANN, bearer
from tests.certificates import Pair, self_signed
from tests.keys import add_keys
from tests.serving import Serving, environment, serving, short_home, wait_until


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with short_home() as path:
        yield path


@pytest.fixture(scope="module")
def pair(folder: Path) -> Pair:
    return self_signed(folder)


@pytest.fixture(scope="module")
def server(engine: Engine, folder: Path, pair: Pair) -> Iterator[Serving]:
    """A server that speaks HTTPS and has a key."""
    add_keys(folder, "admin", ann=ANN)
    with serving(folder, **pair.settings) as running:
        yield running


def client(server: Serving, pair: Pair) -> httpx.Client:
    return httpx.Client(
        base_url=server.url, verify=trusting(pair.certificate), timeout=60, trust_env=False
    )


def port_of(server: Serving) -> int:
    return int(server.url.rsplit(":", 1)[1])


def myllm(home: Path, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "myllm", *arguments],
        env=environment(home, **settings), cwd=home, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_answers_and_streams_come_over_tls(server: Serving, pair: Pair) -> None:
    assert server.url.startswith("https://127.0.0.1:")
    with client(server, pair) as api:
        api.headers.update(bearer(ANN))
        assert api.get("/api/models").status_code == 200
        body = {"model": "demo", "messages": [{"role": "user", "content": "Who are you?"}]}
        with api.stream("POST", "/api/chat", json=body) as answer:
            last = [line for line in answer.iter_lines() if line][-1]
    assert '"done":true' in last


def test_a_stream_over_tls_outlives_its_engine(server: Serving, pair: Pair) -> None:
    with client(server, pair) as api:
        api.headers.update(bearer(ANN))
        assert api.post("/api/models/demo/load").status_code == 200
        options = {"max_tokens": 200, "temperature": 0}
        body = {"model": "demo", "prompt": "One two three", "options": options}
        with api.stream("POST", "/api/generate", json=body) as answer:
            lines = answer.iter_lines()
            next(lines)
            [engine] = server.engines()
            engine.kill()
            rest = [line for line in lines if line]
    assert '"done":true' in rest[-1]
    assert '"error"' not in rest[-1]


def test_a_client_that_does_not_trust_the_certificate_gets_nothing(server: Serving) -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{server.url}/", trust_env=False)


def test_plain_http_gets_nothing(server: Serving) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(server.url.replace("https:", "http:"), trust_env=False, timeout=20)


def test_an_old_version_of_tls_is_refused(server: Serving) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", port_of(server)), timeout=20) as connection,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        old.wrap_socket(connection)


# The command line


def test_commands_find_the_user_s_own_server(server: Serving) -> None:
    """By what the server has noted: its certificate is self-signed and for another name."""
    done = myllm(server.home, "ps", port=port_of(server), api_key=ANN)
    assert (done.returncode, done.stderr) == (0, "")
    done = myllm(server.home, "run", "demo", "What is the capital of France?",
                 port=port_of(server), api_key=ANN)  # fmt: skip
    assert done.stdout == "The capital of France is Paris.\n"
    assert "a running MyLLM" in myllm(server.home, "doctor", port=port_of(server)).stdout


def test_commands_reach_another_server_by_its_certificate(
    server: Serving, pair: Pair, home: Path
) -> None:
    port = port_of(server)
    done = myllm(home, "ps", port=port, api_key=ANN, tls_cert=pair.certificate)
    assert (done.returncode, done.stderr) == (0, "")
    other = self_signed(home)
    for settings in ({}, {"tls_cert": other.certificate}):
        failed = myllm(home, "ps", port=port, api_key=ANN, **settings)
        assert failed.returncode == 1
        assert "no MyLLM server answers" in failed.stderr


def test_the_greeting_has_a_command_that_works(engine: Engine, home: Path) -> None:
    pair = self_signed(home)
    with serving(home, **pair.settings) as server:
        assert server.process.stdout is not None
        _, example = (server.process.stdout.readline() for _ in range(2))
        done = subprocess.run(
            example, shell=True, capture_output=True, text=True, timeout=60, check=True
        )
    assert '"content":' in done.stdout


# A changed certificate


@pytest.mark.parametrize("by_signal", [True, False])
def test_a_changed_certificate_counts_after_a_reload(
    engine: Engine, home: Path, by_signal: bool
) -> None:
    pair, new = self_signed(home), self_signed(home, "new.example")
    first = Pair(home / "first.crt", home / "first.key")
    shutil.copy(pair.certificate, first.certificate)

    def reload(server: Serving, old: httpx.Client) -> None:
        if by_signal:
            server.process.send_signal(signal.SIGHUP)
        else:
            assert old.post("/api/reload").status_code == 200

    def answers(server: Serving, which: Pair) -> bool:
        try:
            with client(server, which) as api:
                return api.get("/").status_code == 200
        except httpx.ConnectError:
            return False

    with serving(home, **pair.settings) as server, client(server, first) as old:
        assert old.get("/").status_code == 200
        pair.key.write_text("no key")
        reload(server, old)
        wait_until(lambda: "certificate not reloaded" in server.log, 20, "a line in the log")
        assert answers(server, first), "the old certificate stays"
        shutil.copy(new.certificate, pair.certificate)
        shutil.copy(new.key, pair.key)
        reload(server, old)
        wait_until(lambda: answers(server, new), 20, "the new certificate")
        assert not answers(server, first)
        assert old.get("/").status_code == 200, "an open connection goes on"


def shakes_hands(tls: Tls, pair: Pair) -> bool:
    """Whether a client that trusts the certificate of `pair` alone gets a connection."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = tls.context.wrap_bio(there, back, server_side=True)
    client = trusting(pair.certificate).wrap_bio(back, there)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
    return client.getpeercert(binary_form=True) is not None


def test_files_that_change_during_a_reload_are_not_mixed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, new = self_signed(home), self_signed(home, "new.example")
    locked = self_signed(home, "locked.example", "-passout", "pass:sesame")
    tls, check = Tls(pair.certificate, pair.key), tls_module._context
    shutil.copy(new.certificate, pair.certificate)
    shutil.copy(new.key, pair.key)

    def check_and_change(certificate: Path, key: Path) -> ssl.SSLContext:
        context = check(certificate, key)
        shutil.copy(locked.key, key)
        return context

    monkeypatch.setattr(tls_module, "_context", check_and_change)
    tls.reload()
    assert shakes_hands(tls, new)
    tls.reload()  # cannot use the key, and changes nothing
    assert shakes_hands(tls, new)


# Files that cannot be used


def test_tls_takes_a_certificate_and_its_key(pair: Pair, folder: Path) -> None:
    assert Tls.of(load_settings()) is None
    for name, other in (("tls_cert", "MYLLM_TLS_KEY"), ("tls_key", "MYLLM_TLS_CERT")):
        with pytest.raises(InvalidSettings, match=f"set {other}, too"):
            Tls.of(load_settings(**{name: pair.certificate}))


def test_a_useless_file_is_one_clear_line(pair: Pair, folder: Path, home: Path) -> None:
    other = self_signed(home, "other.example")
    locked = self_signed(home, "locked.example", "-passout", "pass:sesame")
    text, binary = home / "text", home / "binary"
    text.write_text("hello")
    binary.write_bytes(b"\x30\x82\x01\x00" + b"\xff" * 300)
    broken = home / "broken.crt"
    broken.write_text(pair.certificate.read_text().replace("\nMII", "\n!!!"))
    wrong = {
        (home / "none", pair.key): f"MYLLM_TLS_CERT: cannot read {home}/none: No such file",
        (pair.certificate, home): f"MYLLM_TLS_KEY: cannot read {home}: Is a directory",
        (text, pair.key): f"MYLLM_TLS_CERT: {text} has no certificate in PEM format",
        (pair.certificate, binary): f"MYLLM_TLS_KEY: {binary} has no private key in PEM format",
        (pair.certificate, other.key): "does not belong to the certificate in",
        (locked.certificate, locked.key): f"the key in {locked.key} has a passphrase",
        (broken, pair.key): "cannot be used",
    }
    for (certificate, key), told in wrong.items():
        with pytest.raises(InvalidSettings) as refused:
            Tls(certificate, key)
        assert told in refused.value.detail


def test_serve_stops_at_a_useless_certificate(pair: Pair, home: Path) -> None:
    other = self_signed(home, "other.example")
    settings = {"tls_cert": pair.certificate, "tls_key": other.key}
    done = myllm(home, "serve", "--port", "0", **settings)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "does not belong to the certificate" in done.stderr
    assert done.stderr.count("\n") == 1


def test_only_the_server_s_own_certificate_is_trusted(pair: Pair, home: Path) -> None:
    """A chain also has that of an authority, which signs those of strangers."""
    authority = self_signed(home, "authority.example")
    chain = home / "chain.crt"
    chain.write_text(pair.certificate.read_text() + authority.certificate.read_text())
    assert (
        len(trusting(chain).get_ca_certs()) == len(trusting(pair.certificate).get_ca_certs()) == 1
    )
