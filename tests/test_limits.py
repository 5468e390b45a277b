"""The page about limits has every limit, with its number."""

from __future__ import annotations

import re
from pathlib import Path

from myllm import limits

PAGE = Path(__file__).parent.parent / "docs" / "limits.md"


def test_the_page_and_the_module_agree() -> None:
    documented = dict(re.findall(r"^\| `([A-Z_]+)` \| (\d+) \| \S", PAGE.read_text(), re.MULTILINE))
    known = {name: str(value) for name, value in vars(limits).items() if isinstance(value, int)}
    assert documented == known
