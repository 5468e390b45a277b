"""What `GET /api/requests` shows, described for the API's documentation."""

from __future__ import annotations

from pydantic import BaseModel, Field

from myllm.gateway.observers.recent_requests import State


class ShownRequest(BaseModel):
    """A request that asked a model, or that failed."""

    number: int | None = Field(description="Its number in the order of their ends; null: not yet.")
    id: str = Field(description="The id in its X-Request-ID.")
    began_at: str = Field(description="When it came.")
    key: str | None = Field(description="The name of its key.")
    address: str = Field(description="The address that it came from.")
    model: str | None = Field(description="The model that it asked; null: none, or an unknown one.")
    role: str | None = Field(description="What it asked it for: generate, embed or rerank.")
    dialect: str = Field(description="The API that its client speaks.")
    method: str = Field(description="Its HTTP method.")
    path: str = Field(description="Its path, at most 200 characters.")
    state: State = Field(description="Where it is, or how it ended; cancelled: its client left.")
    status: int | None = Field(description="Its HTTP status; null: no answer has begun.")
    seconds: float = Field(description="How long it took, or has taken so far.")
    wait_seconds: float = Field(description="How long it waited for its slot, with the load.")
    load_seconds: float = Field(description="How much of that was the load of its model.")
    first_token_seconds: float | None = Field(description="When its first token came.")
    prompt_tokens: int = Field(description="Tokens of its prompt, once it has ended.")
    cached_tokens: int = Field(description="How many of them were in the KV cache.")
    generated_tokens: int = Field(description="Tokens of its answer, once it has ended.")
    tokens_per_second: float | None = Field(description="How fast they came after the first.")
    resumed: int = Field(description="How many engines died under it.")
    truncated: bool = Field(description="Whether its conversation did not fit into the context.")
    dropped_messages: int = Field(description="How many messages of it were left out.")
    finish_reason: str | None = Field(description="Why its answer ended.")
    error: str | None = Field(description="Why it failed.")
    request_body: str | None = Field(None, description="Its body, if captured; admins only.")
    request_bytes: int | None = Field(None, description="The size of the whole body.")
    response_body: str | None = Field(None, description="Its answer, if captured; admins only.")
    response_bytes: int | None = Field(None, description="The size of the whole answer.")


class RequestList(BaseModel):
    """The last requests."""

    requests: list[ShownRequest] = Field(description="Those under way first, then the newest.")
    last: int = Field(description="The number of the one that ended last, for `after`.")
