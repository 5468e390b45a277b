"""llama-server's protocol towards a parent process, which is internal to llama.cpp.

A server started with `LLAMA_SERVER_ROUTER_PORT` in its environment and pipes on stdin and
stdout reports its state as lines on stdout and exits when stdin ends, so that no engine outlives
its supervisor. The protocol is undocumented, so `/health` is polled for readiness as well.
Source: tools/server/server-models.cpp of the pinned llama.cpp.
"""

from __future__ import annotations

import json

from myllm.launcher.base import ChildState

ENVIRONMENT = {"LLAMA_SERVER_ROUTER_PORT": "1"}
_STATE_PREFIX = "cmd_child_to_router:state:"


def parse_state(line: str) -> ChildState | None:
    """The state that `line` reports, or None when it is another kind of line."""
    if not line.startswith(_STATE_PREFIX):
        return None
    try:
        message = json.loads(line[len(_STATE_PREFIX) :])
        state = message["state"]
        payload = message.get("payload") or {}
        return ChildState(state, _overall_progress(payload) if state == "loading" else None)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # another version's protocol: polling /health still finds out


def _overall_progress(payload: dict[str, object]) -> float | None:
    """Progress over all stages, which count as equal parts."""
    stages, current, value = payload.get("stages"), payload.get("current"), payload.get("value")
    if not isinstance(stages, list) or current not in stages or not isinstance(value, int | float):
        return None
    return (stages.index(current) + min(max(float(value), 0.0), 1.0)) / len(stages)
