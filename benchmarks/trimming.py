"""How much of a long chat's prompts is in the cache, although old turns must be left out."""

from __future__ import annotations

from benchmarks.figures import Figure
from benchmarks.models import long_models_dir
from benchmarks.servers import myllm_server

_TURNS = 200
_CONTEXT = 4096
_QUESTION = "Please tell me one more thing that I do not know about number {} of these things."
_ANSWER_TOKENS = 32


def measure() -> list[Figure]:
    """200 turns of about 60 tokens in a context of 4,096."""
    prompt = cached = dropped = 0
    with (
        myllm_server(models_dir=long_models_dir(), context_size=_CONTEXT) as server,
        server.client() as api,
    ):
        for turn in range(_TURNS):
            body = {
                "model": "long",
                "session_id": "s",
                "messages": [{"role": "user", "content": _QUESTION.format(turn)}],
                "options": {"temperature": 0, "max_tokens": _ANSWER_TOKENS},
                "stream": False,
            }
            answer = api.post("/api/chat", json=body).raise_for_status().json()
            prompt += answer["usage"]["prompt_tokens"]
            cached += answer["usage"]["cached_tokens"]
            dropped = answer.get("dropped_messages", 0)
    unread = 100 * (1 - cached / prompt)
    note = f"{prompt} tokens in {_TURNS} prompts, {dropped} messages left out of the last one"
    return [Figure("tokens of prompts that were not in the cache", unread, "%", 10, note)]
