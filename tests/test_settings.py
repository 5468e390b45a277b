"""The sources of settings, the messages for invalid ones, and their documentation."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from myllm.errors import InvalidSettings
from myllm.settings import Settings, load_settings, unknown_settings
from myllm.settings_files import load_env_file

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
PATHS = sorted(
    name for name, field in Settings.model_fields.items() if "pathlib" in str(field.annotation)
)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of the user's config.toml, which does not exist yet."""
    path = tmp_path / "config.toml"
    monkeypatch.setenv("MYLLM_CONFIG", str(path))
    return path


@contextmanager
def restored_environment() -> Iterator[None]:
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_has_help_and_is_in_the_pages_table(name: str) -> None:
    text = Settings.model_fields[name].description
    assert text
    begins = f"| `MYLLM_{name.upper()}` |"
    [row] = [line for line in PAGE.read_text().splitlines() if line.startswith(begins)]
    assert text in row


def test_command_line_over_environment_over_env_file_over_toml(
    tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text("port = 1\nslots = 7\n")
    assert (load_settings().port, load_settings().slots) == (1, 7)
    (tmp_path / "some.env").write_text("MYLLM_PORT=2\nMYLLM_QUEUE_SIZE=5\n")
    with restored_environment():
        load_env_file(tmp_path / "some.env")
        assert (load_settings().port, load_settings().queue_size) == (2, 5)
    monkeypatch.setenv("MYLLM_PORT", "3")
    with restored_environment():
        load_env_file(tmp_path / "some.env")
        assert (load_settings().port, load_settings().queue_size) == (3, 5)
    assert load_settings(port=4, host=None).port == 4


def test_nothing_is_read_from_the_working_directory(
    tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("MYLLM_PORT=2\n")
    assert load_settings().port == Settings.model_fields["port"].default


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYLLM_SLOTS", "")
    monkeypatch.setenv("MYLLM_ADMIN_KEY_FILE", "")
    assert (load_settings().slots, load_settings().admin_key_file) == (None, None)


@pytest.mark.parametrize("name", PATHS)
def test_a_tilde_means_the_home_directory_in_every_path(
    name: str, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/of-ours")
    monkeypatch.delenv(f"MYLLM_{name.upper()}", raising=False)
    config.write_text(f'{name} = "~/in/toml"\n')
    assert getattr(load_settings(), name) == Path("/home/of-ours/in/toml")
    monkeypatch.setenv(f"MYLLM_{name.upper()}", "~/in/environment")
    assert getattr(load_settings(), name) == Path("/home/of-ours/in/environment")
    assert getattr(load_settings(**{name: Path("~")}), name) == Path("/home/of-ours")
    monkeypatch.setenv(f"MYLLM_{name.upper()}", "~no-such-user/x")
    with pytest.raises(InvalidSettings, match=f"MYLLM_{name.upper()}.*~no-such-user"):
        load_settings()


def test_a_tilde_in_the_config_files_path_and_in_sqlites_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MYLLM_CONFIG", "~/mine.toml")
    (tmp_path / "mine.toml").write_text('database_url = "sqlite:///~/chats.db"\n')
    assert load_settings().database() == f"sqlite:///{tmp_path}/chats.db"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("toml", "setting 'slots' in .*config.toml: .*greater than or equal to 1.*0"),
        ("environment", "setting MYLLM_SLOTS: .*greater than or equal to 1.*0"),
        ("command line", "--slots: .*greater than or equal to 1.*0"),
    ],
)
def test_a_wrong_value_is_reported_with_its_source(
    source: str, message: str, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text("slots = 0\n")
    if source != "toml":
        monkeypatch.setenv("MYLLM_SLOTS", "0")
    given = {"slots": 0} if source == "command line" else {}
    with pytest.raises(InvalidSettings, match=message):
        load_settings(**given)


def test_a_secret_is_not_shown(config: Path) -> None:
    config.write_text("api_key = 12345\n")
    with pytest.raises(InvalidSettings, match="api_key") as failure:
        load_settings()
    assert "12345" not in failure.value.detail


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = 1\nport = x\n", "is not valid TOML: .*line 2"),
        (b"port = 1\nport = 2\n", "is not valid TOML"),
        (bytes(range(256)), "is not UTF-8 text"),
        ("port = 1".encode("utf-16"), "is not UTF-8 text"),
        (b"#" * (2**20 + 1), "is larger than 1 MiB"),
    ],
)
def test_a_broken_config_file_is_named(config: Path, content: bytes, message: str) -> None:
    config.write_bytes(content)
    with pytest.raises(InvalidSettings, match=f"{config} {message}"):
        load_settings()


def test_a_byte_order_mark_is_ignored(config: Path) -> None:
    config.write_text("port = 1\n", encoding="utf-8-sig")
    assert load_settings().port == 1


@pytest.mark.parametrize("kind", ["folder", "fifo", "device", "socket path too long"])
def test_a_config_file_of_the_wrong_kind_is_named(
    config: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    match kind:
        case "folder":
            config.mkdir()
        case "fifo":
            os.mkfifo(config)
        case "device":
            monkeypatch.setenv("MYLLM_CONFIG", "/dev/zero")
        case _:
            monkeypatch.setenv("MYLLM_CONFIG", "/" + "x" * 5000)
    with pytest.raises(InvalidSettings, match=r"is not a regular file|cannot be read"):
        load_settings()


def test_dev_null_is_no_config_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYLLM_CONFIG", "/dev/null")
    assert load_settings().port == Settings.model_fields["port"].default


@contextmanager
def another_user(path: Path) -> Iterator[None]:
    """Root can read every file, so become another user for a moment."""
    path.chmod(0)
    own = os.geteuid()
    if own == 0:
        os.seteuid(12345)
    try:
        yield
    finally:
        os.seteuid(own)


def test_a_config_file_that_cannot_be_read_is_named(config: Path) -> None:
    config.write_text("port = 1\n")
    with another_user(config), pytest.raises(InvalidSettings, match=r"config.toml cannot be read"):
        load_settings()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("MYLLM_PORT=1\n=2\n", "line 2 is not of the form NAME=value"),
        ("MYLLM_PORT\n", "line 1 is not of the form NAME=value"),
    ],
)
def test_a_broken_env_file_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "some.env"
    if content is not None:
        path.write_text(content)
    with restored_environment(), pytest.raises(InvalidSettings, match=f"{path} {message}"):
        load_env_file(path)


def test_unknown_names_are_reported_with_the_nearest_known(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert unknown_settings() == []
    config.write_text("prot = 1\nport = 2\n[keep]\nalive = 5\n")
    monkeypatch.setenv("MYLLM_KEEPALIVE", "5m")
    monkeypatch.setenv("MYLLM_PORT", "1")
    monkeypatch.setenv("MYLLM_PYTHON", "python3")
    assert unknown_settings() == [
        "MYLLM_KEEPALIVE is not a setting; did you mean MYLLM_KEEP_ALIVE?",
        f"'prot' in {config} is not a setting; did you mean 'port'?",
        f"'keep' in {config} is not a setting; did you mean 'keep_alive'?",
    ]


def test_kubernetes_variables_of_a_service_named_myllm_are_no_settings(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = {
        "MYLLM_SERVICE_HOST": "10.0.0.1",
        "MYLLM_SERVICE_PORT": "8000",
        "MYLLM_SERVICE_PORT_HTTP": "8000",
        "MYLLM_PORT": "tcp://10.0.0.1:8000",
        "MYLLM_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "MYLLM_PORT_8000_TCP_ADDR": "10.0.0.1",
    }
    for name, value in links.items():
        monkeypatch.setenv(name, value)
    config.write_text("port = 9000\n")
    assert (load_settings().port, unknown_settings()) == (9000, [])
