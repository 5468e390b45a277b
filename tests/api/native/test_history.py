"""`GET /api/history` of a real server."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.api.credentials import ANN, BOB, bearer
from tests.api.events import detail, post
from tests.serving import wait_until

HI = [{"role": "user", "content": "Hello"}]


def test_the_steps_have_what_was_asked(api: httpx.Client) -> None:
    def shown() -> dict[str, Any]:
        answer: dict[str, Any] = api.get("/api/history").json()
        return answer

    usage = post(api, "/api/chat", model="demo", messages=HI, stream=False)["usage"]
    api.post("/api/chat", json={"model": "no-such-model", "messages": HI})
    wait_until(lambda: sum(shown()["requests"]) == 2, 20, "the step has ended")
    history = shown()
    assert history["step_seconds"] == 5
    count = len(history["times"])
    for name in ("requests", "errors", "running", "queued", "generated_tokens_per_second"):
        assert len(history[name]) == count
    assert (sum(history["errors"]), history["running"][-1], history["queued"][-1]) == (1, 0, 0)
    # Steps are a little longer than five seconds on a busy machine.
    assert sum(history["generated_tokens_per_second"]) * 5 <= usage["completion_tokens"] + 1
    assert sum(history["generated_tokens_per_second"]) > 0
    assert any(history["first_token_seconds"]["median"])
    assert history["memory"]["host"]["predicted_mb"][-1] > 0
    assert history["gpu_utilization"] == {}
    assert len(api.get("/api/history", params={"steps": 1}).json()["times"]) == 1


@pytest.mark.parametrize("steps", [0, 721, "x"])
def test_a_wrong_number_of_steps_is_refused(api: httpx.Client, steps: object) -> None:
    assert detail(api.get("/api/history", params={"steps": str(steps)}), 400)


def test_it_is_for_admins(door: httpx.Client) -> None:
    assert door.get("/api/history", headers=bearer(ANN)).status_code == 200
    assert detail(door.get("/api/history", headers=bearer(BOB)), 403)
