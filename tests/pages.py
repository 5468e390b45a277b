"""The pages of documentation, and the commands on them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, *DOCS, ROOT / "examples" / "README.md", ROOT / "benchmarks" / "README.md"]
_FENCE = re.compile(r"^```\w*\n.*?^```$", re.MULTILINE | re.DOTALL)
_BASH = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n)?^```bash\n(?P<script>.*?)^```$"
    r"(?:\n\n^```text\n(?P<prints>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Script:
    """A `bash` block of a page, and the `text` block right after it, which has lines of its output.

    `reason` is why the tests do not run it, from a comment right above the block; None if they do.
    """

    page: str
    line: int
    script: str
    prints: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def scripts(page: Path) -> list[Script]:
    """All `bash` blocks of `page`, from top to bottom."""
    text = page.read_text()
    return [
        Script(
            str(page.relative_to(ROOT)),
            text.count("\n", 0, found.start("script")),
            found["script"],
            found["prints"] or "",
            found["reason"],
        )
        for found in _BASH.finditer(text)
    ]


def prose(page: Path) -> str:
    """The text of `page` without its blocks of code."""
    return _FENCE.sub("", page.read_text())
