"""What `GET /api/history` shows, described for the API's documentation."""

from __future__ import annotations

from pydantic import BaseModel, Field


class FirstToken(BaseModel):
    """Seconds from the request to its first token, of the answers that ended in each step."""

    median: list[float | None] = Field(description="The median; null without any answer.")
    p95: list[float | None] = Field(description="The 95th percentile.")


class MemoryHistory(BaseModel):
    """The memory of all engines on one device, in MiB."""

    predicted_mb: list[int | None] = Field(description="What was predicted for them.")
    measured_mb: list[int | None] = Field(description="What they were measured to take.")


class HistoryShown(BaseModel):
    """The last hour. All lists have the same length; the oldest step comes first."""

    step_seconds: float = Field(description="How long a step is, but for delays.")
    times: list[int] = Field(description="The end of each step, in seconds since 1970.")
    requests: list[int] = Field(description="Requests that ended: to models, and failed ones.")
    errors: list[int] = Field(description="How many of them failed.")
    prompt_tokens_per_second: list[float] = Field(description="Tokens of prompts.")
    generated_tokens_per_second: list[float] = Field(
        description="Tokens of answers, when they were generated; of complete answers only."
    )
    first_token_seconds: FirstToken = Field(description="How long the first token took.")
    running: list[int] = Field(description="Requests that held a slot at the end of the step.")
    queued: list[int] = Field(description="Requests that waited then.")
    memory: dict[str, MemoryHistory] = Field(description="By device.")
    gpu_utilization: dict[str, list[float | None]] = Field(
        description="How busy each GPU was then, from 0 to 1; empty without NVML."
    )
