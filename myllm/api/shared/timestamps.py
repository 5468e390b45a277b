"""Times in the API's format."""

from __future__ import annotations

from datetime import UTC, datetime


def iso(seconds: float) -> str:
    """Format seconds since 1970 as ISO 8601 in UTC, with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
