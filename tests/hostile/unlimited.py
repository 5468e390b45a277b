"""`myllm` without the limits on what shapes an answer, so that an engine gets what kills it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from myllm.__main__ import main
from myllm.gateway.constraints import checks


async def _check(body: Mapping[str, Any]) -> None:
    """Everything passes."""


checks.check = _check
main()
