"""The keys file of earlier versions."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from myllm.errors import InvalidKeysFile
from myllm.sessions.keys_file import parse, read

FILE = Path("keys")
HASH = hashlib.sha256(b"secret").hexdigest()


def test_a_file_has_hashes_by_name(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# ours\n\n ann : {HASH.upper()} \nbob:{'0' * 64}\n")
    assert read(file) == {"ann": bytes.fromhex(HASH), "bob": bytes(32)}


@pytest.mark.parametrize(
    "line",
    ["ann", "ann:", "ann:secret", f":{HASH}", f"an n:{HASH}", f"ann:{HASH}0", f"ann:{HASH}:x"],
)
def test_a_malformed_line_is_named_and_never_shown(line: str) -> None:
    with pytest.raises(InvalidKeysFile, match="line 2 of the keys file keys") as caught:
        parse(f"# one\n{line}\n", FILE)
    assert "secret" not in caught.value.detail
    assert HASH not in caught.value.detail


def test_a_name_is_unique() -> None:
    with pytest.raises(InvalidKeysFile, match=r"line 2 .* repeats a name"):
        parse(f"ann:{HASH}\nann:{HASH}\n", FILE)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(InvalidKeysFile, match=str(path)):
            read(path)
