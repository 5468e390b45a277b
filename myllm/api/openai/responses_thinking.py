"""The items of type reasoning: what a model has thought, and will be given again.

Some clients (Codex) send back neither text nor summary of such an item, only what its field
`encrypted_content` had. There it is the thinking itself, encoded: nothing is kept on the server,
and the client has the same text in the open.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

_OURS: Final = "myllm-thinking:"


def encoded(thinking: str) -> str:
    """Return `thinking` as the content of `encrypted_content`."""
    return _OURS + base64.b64encode(thinking.encode()).decode()


def thinking_of(item: Mapping[str, Any]) -> str:
    """Return what a reasoning item says: its text, what it has encoded, or else its summary."""
    return _texts(item.get("content")) or _decoded(item) or _texts(item.get("summary"))


def _decoded(item: Mapping[str, Any]) -> str:
    content = item.get("encrypted_content")
    if not isinstance(content, str) or not content.startswith(_OURS):
        return ""
    try:
        return base64.b64decode(content.removeprefix(_OURS), validate=True).decode()
    except ValueError:  # no base64, or no text
        return ""


def _texts(parts: Any) -> str:
    if not isinstance(parts, list):
        return ""
    texts = (part.get("text") for part in parts if isinstance(part, Mapping))
    return "\n".join(text for text in texts if isinstance(text, str) and text)
