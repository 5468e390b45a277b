"""`myllm` as it is installed without the extra `otel`."""

from __future__ import annotations

import sys

from myllm.__main__ import main

# The rest of it comes with FastAPI.
for name in ("opentelemetry.sdk", "opentelemetry.exporter"):
    sys.modules[name] = None  # type: ignore[assignment]
main()
