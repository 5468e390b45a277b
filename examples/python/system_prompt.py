"""Say how the model is to behave. The demo model takes no orders; a real one does."""

import os

import requests

URL = os.environ.get("MYLLM_URL", "http://localhost:8000")

answer = requests.post(
    f"{URL}/api/chat",
    json={
        "model": "demo",
        "messages": [
            {"role": "system", "content": "You are a helpful assistant. Answer in one sentence."},
            {"role": "user", "content": "What is the capital of France?"},
        ],
        "stream": False,
    },
)
answer.raise_for_status()
print(answer.json()["message"]["content"])
