"""Let the model go on from a prompt and wait for the whole text."""

import os

import requests

URL = os.environ.get("MYLLM_URL", "http://localhost:8000")

answer = requests.post(
    f"{URL}/api/generate",
    json={
        "model": "demo",
        "prompt": "Once upon a time",
        "stream": False,
        "options": {"max_tokens": 100},
    },
)
answer.raise_for_status()

completion = answer.json()
print(completion["text"])
print(f"({completion['usage']['total_tokens']} tokens)")
