"""The word in a raw prompt that stands for a picture or a sound.

An engine would choose one of its own at each start, so a prompt with it could not go on with the
next engine. It is random, so that no text in a chat has it by chance.
"""

from __future__ import annotations

import os
import re
from typing import Final

MEDIA_MARKER: Final = f"<__media_{os.urandom(8).hex()}__>"
VARIABLE: Final = "LLAMA_MEDIA_MARKER"
"""The environment variable that tells an engine."""
# llama.cpp's documentation and tests use this one.
_DOCUMENTED: Final = "<__media__>"
_DIRECTLY_BEFORE_ANOTHER: Final = re.compile(f"{MEDIA_MARKER}(?={MEDIA_MARKER})")


def with_marker(prompt: str) -> str:
    """Return `prompt` with the engine's marker for the documented one, never two side by side.

    A slot that has read one medium directly after another fails at later prompts that begin alike.
    """
    marked = prompt.replace(_DOCUMENTED, MEDIA_MARKER)
    return _DIRECTLY_BEFORE_ANOTHER.sub(f"{MEDIA_MARKER}\n", marked)
