"""The demo model under other names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from myllm.models.registry import BUILTIN_DIR

DEMO = BUILTIN_DIR / "demo"


def add_toy(models: Path, name: str = "toy", **config: Any) -> Path:
    """Copy the demo model under another name into `models`."""
    folder = models / name
    shutil.copytree(DEMO, folder)
    own = json.loads((DEMO / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(own | config))
    return folder
