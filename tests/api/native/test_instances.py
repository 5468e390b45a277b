"""What `GET /api/instances` shows."""

from __future__ import annotations

from datetime import datetime

import httpx

from tests.api.events import post

HI = [{"role": "user", "content": "Hello"}]


def test_an_instance_as_it_is_shown(api: httpx.Client) -> None:
    post(api, "/api/chat", model="demo", messages=HI, stream=False)
    [one] = [i for i in api.get("/api/instances").json()["instances"] if i["model"] == "demo"]
    assert one["role"] == "generate"
    assert one["state"] == "ready"
    assert one["pid"] > 1
    assert one["slots"] == {"busy": 0, "total": 4}
    assert one["queued"] == 0
    assert one["memory"]["estimated_mb"] > 0
    assert one["restarts"] >= 0
    assert one["last_error"] is None
    for when in ("started_at", "last_used_at"):
        assert datetime.fromisoformat(one[when]).tzinfo is not None


def test_an_idle_model_without_an_engine_is_left_out(api: httpx.Client) -> None:
    post(api, "/api/models/demo/load")
    post(api, "/api/models/demo/unload")
    assert api.get("/api/instances").json()["instances"] == []
