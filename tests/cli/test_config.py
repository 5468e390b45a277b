"""`myllm config show`: the value and the source of each setting."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from myllm.settings import SECRET, Settings
from tests.serving import environment

pytestmark = pytest.mark.full  # a process for each command
SECRETS = ("geheim", "sk-myllm-abc", "sk-myllm-xyz")


def myllm(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "myllm", *arguments],
        env=environment(home) | variables,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def shown(home: Path, *before: str, **variables: str) -> dict[str, dict[str, Any]]:
    """What it shows of each setting."""
    done = myllm(home, *before, "config", "show", "--json", **variables)
    assert (done.returncode, done.stderr) == (0, "")
    return {each.pop("name"): each for each in json.loads(done.stdout)}


def entry(value: object, source: str, where: str | None = None) -> dict[str, object]:
    return {"value": value, "source": source, "where": where}


def test_every_setting_is_shown(tmp_path: Path) -> None:
    settings = shown(tmp_path)
    assert list(settings) == [f"MYLLM_{name.upper()}" for name in Settings.model_fields]
    assert settings["MYLLM_PORT"] == entry(8000, "default")
    assert settings["MYLLM_SLOTS"] == entry(None, "default")
    models = str(tmp_path / "models")
    assert settings["MYLLM_MODELS_DIR"] == entry(models, "environment", "MYLLM_MODELS_DIR")


def test_the_strongest_source_of_a_setting_is_named(tmp_path: Path) -> None:
    toml, extra = tmp_path / "config.toml", tmp_path / "extra.env"
    toml.write_text('port = 1\nslots = 2\nqueue_size = 3\nlog_level = "error"\nthreads = 4\n')
    extra.write_text("MYLLM_SLOTS=5\nMYLLM_QUEUE_SIZE=6\nMYLLM_CORS_ORIGINS=http://a,http://b\n")
    before = ("--env-file", str(extra), "--verbose", "--models-dir", str(tmp_path / "mine"))
    settings = shown(tmp_path, *before, MYLLM_QUEUE_SIZE="7", myllm_idle_timeout="8", MYLLM_PORT="")
    assert settings["MYLLM_PORT"] == entry(1, "file", str(toml))
    assert settings["MYLLM_THREADS"] == entry(4, "file", str(toml))
    assert settings["MYLLM_SLOTS"] == entry(5, "env file", str(extra))
    assert settings["MYLLM_QUEUE_SIZE"] == entry(7, "environment", "MYLLM_QUEUE_SIZE")
    assert settings["MYLLM_IDLE_TIMEOUT"] == entry(8.0, "environment", "myllm_idle_timeout")
    assert settings["MYLLM_CORS_ORIGINS"]["value"] == ["http://a", "http://b"]
    assert settings["MYLLM_LOG_LEVEL"] == entry("debug", "command line", "--verbose")
    mine = str(tmp_path / "mine")
    assert settings["MYLLM_MODELS_DIR"] == entry(mine, "command line", "--models-dir")


@pytest.mark.parametrize("form", [(), ("--json",)])
@pytest.mark.parametrize(
    ("url", "without"),
    [
        ("postgresql://ann:geheim@db/x", "postgresql://ann:***@db/x"),
        ("postgresql://ann:geheim/@db:1/x", "postgresql://ann:***@db:1/x"),
        ("postgresql://ann:a:geheim?#@db/x", "postgresql://ann:***@db/x"),
        ("postgresql://ann@db/x?password=geheim", "postgresql://ann@db/x?password=***"),
        ("postgresql://db/x?sslpassword=geheim&host=y", "sslpassword=***"),
        ("geheim", "***"),
        ("sqlite:///tmp/x.db", "sqlite:///tmp/x.db"),
    ],
)
def test_secrets_are_masked(home: Path, form: tuple[str, ...], url: str, without: str) -> None:
    keys = {"MYLLM_API_KEY": "sk-myllm-abc", "MYLLM_ADMIN_KEY": "sk-myllm-xyz"}
    done = myllm(home, "config", "show", *form, MYLLM_DATABASE_URL=url, **keys)
    assert done.returncode == 0, done.stderr
    assert not [secret for secret in SECRETS if secret in done.stdout]
    assert without in done.stdout


def test_each_setting_that_holds_a_secret_is_masked() -> None:
    types = {name: str(field.annotation) for name, field in Settings.model_fields.items()}
    assert {name for name, kind in types.items() if "SecretStr" in kind} <= SECRET


def test_in_a_table(tmp_path: Path) -> None:
    heading, *rows = myllm(tmp_path, "config", "show", MYLLM_PORT="9").stdout.splitlines()
    assert heading.split() == ["SETTING", "VALUE", "SOURCE"]
    assert ["MYLLM_PORT", "9", "environment", "MYLLM_PORT"] in [row.split() for row in rows]
    assert ["MYLLM_REMOTE_MEDIA", "false", "default"] in [row.split() for row in rows]


def test_a_wrong_setting_is_named_instead(tmp_path: Path) -> None:
    done = myllm(tmp_path, "config", "show", MYLLM_PORT="many")
    assert (done.returncode, done.stdout) == (2, "")
    assert "MYLLM_PORT" in done.stderr
