"""A conversation that the server remembers: the client sends only what is new."""

import os

import requests

URL = os.environ.get("MYLLM_URL", "http://localhost:8000")

session_id = None  # the first answer says which session it began
for text in ["My name is Tobias.", "What is the capital of France?", "What is my name?"]:
    answer = requests.post(
        f"{URL}/api/chat",
        json={
            "model": "demo",
            "messages": [{"role": "user", "content": text}],
            "session_id": session_id,
            "stream": False,
        },
    )
    answer.raise_for_status()
    turn = answer.json()
    session_id = turn["session_id"]
    print("you: ", text)
    print("demo:", turn["message"]["content"])
