"""A conversation whose history the client keeps and sends with every turn."""

import os

import requests

URL = os.environ.get("MYLLM_URL", "http://localhost:8000")


def chat(messages, session_id=None):
    answer = requests.post(
        f"{URL}/api/chat",
        json={
            "model": "demo",
            "messages": messages,
            "session_id": session_id,
            "stream": False,
        },
    )
    answer.raise_for_status()
    return answer.json()


history = [{"role": "user", "content": "My name is Tobias."}]
first = chat(history)
print("demo:", first["message"]["content"])

# With the session's id the server goes on from what it has already read.
history += [first["message"], {"role": "user", "content": "What is my name?"}]
second = chat(history, first["session_id"])
print("demo:", second["message"]["content"])
