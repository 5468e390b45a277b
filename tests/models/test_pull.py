"""`myllm pull` against a hub on loopback, with the real client library."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from myllm.errors import PullFailed
from myllm.models.pull_source import choose_files, parse_reference
from tests.ggufs import write_header, write_split
from tests.hub import COMMIT, Hub, Repo, serve_hub

pytestmark = pytest.mark.full

REPO = "org/Some-Model-GGUF"
FILE = "some-model.Q4_K_M.gguf"
MB = 1 << 20
CHUNK = 10 * MB
"""The client library writes in pieces of this size; an interruption loses less than one."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub() as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory for the models and the cache of the client library."""
    return tmp_path / "home"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A whole model."""
    return write_header(tmp_path_factory.mktemp("small") / "m.gguf").read_bytes()


@pytest.fixture(scope="module")
def large(small: bytes) -> bytes:
    """A model of 24 MB: several pieces."""
    return small + random.Random(1).randbytes(24 * MB - len(small))


def command(home: Path, hub: Hub, arguments: tuple[str, ...], env: dict[str, str]) -> list[str]:
    home.mkdir(exist_ok=True)
    env |= {key: value for key, value in os.environ.items() if key not in env}
    for name in [name for name in env if name.startswith("MYLLM_") or "proxy" in name.lower()]:
        del env[name]
    env["MYLLM_CONFIG"] = str(home / "config.toml")
    env["HF_HOME"] = str(home / "hf")
    env["HF_HUB_DISABLE_TELEMETRY"] = "1"
    env["HF_ENDPOINT"] = hub.url
    env.setdefault("HF_TOKEN", "")
    models_dir = str(home / "models")
    return [sys.executable, "-m", "myllm", "--models-dir", models_dir, *arguments]


def myllm(home: Path, hub: Hub, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    line = command(home, hub, arguments, env)
    return subprocess.run(line, env=env, capture_output=True, text=True, timeout=120)


def refused(home: Path, hub: Hub, *arguments: str, **env: str) -> str:
    """The error of a pull that fails; it leaves no model."""
    ended = myllm(home, hub, "pull", *arguments, **env)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    models = home / "models"
    assert not models.exists() or all(path.name.startswith(".") for path in models.iterdir())
    return ended.stderr


def test_a_model_is_pulled_whole_with_its_config(home: Path, hub: Hub, small: bytes) -> None:
    hub.repos[REPO] = Repo({"README.md": b"hi", FILE: small, "other.Q8_0.gguf": small})
    ended = myllm(home, hub, "pull", REPO, HF_TOKEN="hf_good")
    assert ended.returncode == 0, ended.stderr
    assert "Pulled some-model" in ended.stdout
    folder = home / "models" / "some-model"
    assert {path.name for path in folder.iterdir()} == {FILE, "config.json"}
    assert (folder / FILE).read_bytes() == small
    config = json.loads((folder / "config.json").read_text())
    assert config == {"name": "some-model", "source": f"{REPO}@{COMMIT}"}
    asked = [seen for seen in hub.requests if seen.path.startswith(("/api/models", "/org"))]
    assert {seen.authorization for seen in asked} == {"Bearer hf_good"}

    again = myllm(home, hub, "pull", REPO)
    assert again.returncode == 0
    assert "already there" in again.stdout
    assert len(hub.ranges()) == 1


def test_a_catalog_name_sets_family_and_description(home: Path, hub: Hub, small: bytes) -> None:
    hub.repos["TheBloke/phi-2-GGUF"] = Repo({"phi-2.Q4_K_M.gguf": small})
    assert myllm(home, hub, "pull", "phi-2", "--name", "mine").returncode == 0
    shown = json.loads(myllm(home, hub, "show", "mine", "--json").stdout)
    assert (shown["family"], shown["template"]) == ("phi", "phi2")
    assert "Phi-2" in shown["description"]


def test_all_parts_of_a_split_model_are_pulled(home: Path, hub: Hub, tmp_path: Path) -> None:
    parts = write_split(tmp_path / "split", "some.Q4_K_M")
    files = {f"folder/{part.name}": part.read_bytes() for part in parts}
    hub.repos[REPO] = Repo(files)
    ended = myllm(home, hub, "pull", REPO)
    assert ended.returncode == 0, ended.stderr
    for part in parts:
        assert (home / "models/some-model" / part.name).read_bytes() == part.read_bytes()


def test_force_replaces_the_model_and_keeps_its_owner_s_settings(
    home: Path, hub: Hub, small: bytes
) -> None:
    hub.repos[REPO] = Repo({FILE: small}, plain_git=True)
    assert myllm(home, hub, "pull", REPO).returncode == 0
    folder = home / "models" / "some-model"
    (folder / FILE).write_bytes(b"broken")
    config = json.loads((folder / "config.json").read_text())
    config["parameters"] = {"temperature": 0.5}
    (folder / "config.json").write_text(json.dumps(config))
    broken = myllm(home, hub, "pull", REPO)
    assert broken.returncode == 1
    assert "--force" in broken.stderr
    assert myllm(home, hub, "pull", REPO, "--force").returncode == 0
    assert (folder / FILE).read_bytes() == small
    assert json.loads((folder / "config.json").read_text()) == config


@pytest.mark.parametrize("reset", [False, True])
def test_a_pull_resumes_after_a_broken_connection(
    home: Path, hub: Hub, large: bytes, reset: bool
) -> None:
    hub.repos[REPO] = Repo({FILE: large})
    hub.cut_after, hub.cuts, hub.reset = 18 * MB, 1, reset
    ended = myllm(home, hub, "pull", REPO)
    assert ended.returncode == 0, ended.stderr
    assert hub.ranges() == [None, f"bytes={CHUNK}-"]
    pulled = (home / "models/some-model" / FILE).read_bytes()
    assert hashlib.sha256(pulled).digest() == hashlib.sha256(large).digest()


def interrupt_at_first_chunk(home: Path, hub: Hub, how: signal.Signals) -> int:
    """Pull from a hub that stalls, and end the client when its first piece is on disk."""
    hub.hold_after = 15 * MB
    env: dict[str, str] = {}
    line = command(home, hub, ("pull", REPO), env)
    process = subprocess.Popen(line, env=env, stderr=subprocess.DEVNULL)
    staging = home / "models" / ".staging" / "some-model"
    deadline = time.monotonic() + 30
    while not any(path.stat().st_size >= CHUNK for path in staging.glob("*.part")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(how)
    code = process.wait(30)
    hub.hold_after = None
    return code


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_pull_leaves_no_model_and_is_resumed_later(
    home: Path, hub: Hub, large: bytes, how: signal.Signals
) -> None:
    hub.repos[REPO] = Repo({FILE: large})
    code = interrupt_at_first_chunk(home, hub, how)
    assert code == (130 if how is signal.SIGINT else -signal.SIGKILL)
    assert [path.name for path in (home / "models").iterdir()] == [".staging"]
    assert "some-model" not in myllm(home, hub, "list", "--json").stdout
    ended = myllm(home, hub, "pull", REPO)
    assert ended.returncode == 0, ended.stderr
    assert hub.ranges() == [None, f"bytes={CHUNK}-"]
    assert (home / "models/some-model" / FILE).read_bytes() == large
    assert not (home / "models/.staging/some-model").exists()


def test_a_new_version_is_not_mixed_with_an_interrupted_old_one(
    home: Path, hub: Hub, large: bytes
) -> None:
    hub.repos[REPO] = Repo({FILE: large})
    interrupt_at_first_chunk(home, hub, signal.SIGKILL)
    newer = large[:-1] + bytes([large[-1] ^ 1])
    hub.repos[REPO] = Repo({FILE: newer})
    assert myllm(home, hub, "pull", REPO).returncode == 0
    assert hub.ranges() == [None, None]
    assert (home / "models/some-model" / FILE).read_bytes() == newer


def test_a_hub_without_ranges_sends_the_whole_file_again(
    home: Path, hub: Hub, large: bytes
) -> None:
    hub.repos[REPO] = Repo({FILE: large})
    interrupt_at_first_chunk(home, hub, signal.SIGKILL)
    hub.no_ranges = True
    ended = myllm(home, hub, "pull", REPO)
    assert ended.returncode == 0, ended.stderr
    assert (home / "models/some-model" / FILE).read_bytes() == large


def test_two_pulls_of_one_model_wait_for_each_other(home: Path, hub: Hub, large: bytes) -> None:
    hub.repos[REPO] = Repo({FILE: large})
    env: dict[str, str] = {}
    line = command(home, hub, ("pull", REPO), env)
    both = [
        subprocess.Popen(line, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted("already there" in words for words in said) == [False, True]
    assert hub.ranges() == [None]


def test_a_damaged_download_is_deleted_and_reported_with_both_checksums(
    home: Path, hub: Hub, small: bytes
) -> None:
    hub.repos[REPO] = Repo({FILE: small})
    hub.spoil = True
    said = refused(home, hub, REPO)
    assert hashlib.sha256(small).hexdigest() in said
    assert hashlib.sha256(small[:-1] + bytes([small[-1] ^ 1])).hexdigest() in said
    assert not list((home / "models").rglob("*.part"))
    hub.spoil = False
    assert myllm(home, hub, "pull", REPO).returncode == 0


def test_too_small_a_disk_is_reported_before_the_download(
    home: Path, hub: Hub, small: bytes
) -> None:
    hub.repos[REPO] = Repo({FILE: small}, declared_size=1 << 60)
    said = refused(home, hub, REPO)
    assert "not enough disk space" in said
    assert "needs 1,152,921,504,607 MB, has" in said
    assert hub.ranges() == []


def test_a_gated_repository_asks_for_a_token(home: Path, hub: Hub, small: bytes) -> None:
    hub.repos[REPO] = Repo({FILE: small}, gated=True)
    for token in ("", "hf_bad"):
        said = refused(home, hub, REPO, HF_TOKEN=token)
        assert "is gated" in said
        assert "HF_TOKEN" in said
    assert myllm(home, hub, "pull", REPO, HF_TOKEN="hf_good").returncode == 0


def test_a_file_that_is_not_a_model_is_not_installed(home: Path, hub: Hub, small: bytes) -> None:
    hub.repos[REPO] = Repo({FILE: b"GGUF or not"})
    assert "version" in refused(home, hub, REPO)


def test_wrong_references_are_refused_with_a_reason(home: Path, hub: Hub, small: bytes) -> None:
    hub.repos[REPO] = Repo({"a.Q8_0.gguf": small, "b.Q8_0.gguf": small})
    hub.repos["org/none"] = Repo({"README.md": b""})
    assert "there is no repository org/missing" in refused(home, hub, "org/missing")
    assert "FILE is one of a.Q8_0.gguf, b.Q8_0.gguf" in refused(home, hub, REPO)
    assert "has no file c.gguf" in refused(home, hub, f"{REPO}:c.gguf")
    assert "holds no GGUF model" in refused(home, hub, "org/none")
    assert "neither in the catalog (tinyllama-1.1b" in refused(home, hub, "tinylama")
    assert "cannot be a model's name" in refused(home, hub, REPO, "--name", "../x")


@pytest.mark.parametrize("reference", ["tinyllama-1.1b", REPO, f"{REPO}:{FILE}"])
def test_the_tag_that_ollama_s_clients_append_is_ignored(reference: str) -> None:
    assert parse_reference(f"{reference}:latest") == parse_reference(reference)
    assert parse_reference(reference, "mine:latest").name == "mine"


def test_a_hub_that_fails_or_is_unreachable(home: Path, hub: Hub) -> None:
    hub.down = True
    assert "status 500" in refused(home, hub, REPO)
    unreachable = Hub(url="http://127.0.0.1:9")
    assert "cannot reach http://127.0.0.1:9" in refused(home, unreachable, REPO)


@pytest.mark.parametrize(
    ("reference", "name", "file"),
    [
        ("hf.co/org/Toy-GGUF", "toy", None),
        ("huggingface.co/org/Toy-GGUF", "toy", None),
        ("https://hf.co/org/Toy-GGUF/", "toy", None),
        ("hf.co/org/Toy-GGUF:toy.Q8_0.gguf", "toy", "toy.Q8_0.gguf"),
        ("org/Toy-GGUF:Q8_0", "toy-q8_0", "Q8_0"),
    ],
)
def test_addresses_of_the_hub(reference: str, name: str, file: str | None) -> None:
    wanted = parse_reference(reference)
    assert (wanted.name, wanted.repo, wanted.file) == (name, "org/Toy-GGUF", file)


@pytest.mark.parametrize(
    ("quantization", "file"),
    [
        ("q8_0", "toy.Q8_0.gguf"),
        ("Q4_K_S", "toy-Q4_K_S.gguf"),
        ("IQ4_XS", "toy-IQ4_XS.gguf"),
        ("Q4_XS", None),
        ("Q4_K", None),
        ("BF16", "toy-BF16-00001-of-00002.gguf"),
    ],
)
def test_a_file_is_found_by_its_quantization(quantization: str, file: str | None) -> None:
    names = ["toy.Q8_0.gguf", "toy-Q4_K_S.gguf", "toy-Q4_K_M.gguf", "toy-IQ4_XS.gguf"]
    names += [f"toy-BF16-0000{n}-of-00002.gguf" for n in (1, 2)]
    wanted = parse_reference(f"org/Toy-GGUF:{quantization}")
    if file is None:
        with pytest.raises(PullFailed, match="has no file"):
            choose_files(wanted, names)
    else:
        assert choose_files(wanted, names)[0] == file
