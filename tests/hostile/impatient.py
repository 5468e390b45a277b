"""`myllm` that soon gives up clients that do not read their answer."""

from __future__ import annotations

from myllm.__main__ import main
from myllm.api.http import streaming

streaming.CLIENT_STALLS_S = 1.0  # type: ignore[misc]
main()
