"""Where settings come from, and that each is documented."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from myllm.settings import Settings, load_settings

README = Path(__file__).parent.parent / "README.md"


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_has_help_and_is_in_the_readmes_table(name: str) -> None:
    text = Settings.model_fields[name].description
    assert text
    begins = f"| `MYLLM_{name.upper()}` |"
    [row] = [line for line in README.read_text().splitlines() if line.startswith(begins)]
    assert text in row


def test_command_line_over_environment_over_env_file_over_toml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MYLLM_CONFIG", str(tmp_path / "config.toml"))
    (tmp_path / "config.toml").write_text("port = 1\nslots = 7\n")
    assert (load_settings().port, load_settings().slots) == (1, 7)
    (tmp_path / ".env").write_text("MYLLM_PORT=2\n")
    assert load_settings().port == 2
    monkeypatch.setenv("MYLLM_PORT", "3")
    assert load_settings().port == 3
    assert load_settings(port=4, host=None).port == 4


def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYLLM_SLOTS", "0")
    with pytest.raises(ValidationError, match="slots"):
        load_settings()
