"""End an answer before certain strings: here, a list after its third item."""

import os

import requests

URL = os.environ.get("MYLLM_URL", "http://localhost:8000")

prompt = "List 3 colors:\n1."
answer = requests.post(
    f"{URL}/api/generate",
    json={
        "model": "demo",
        "prompt": prompt,
        "stream": False,
        "options": {"stop": ["\n4.", "\n\n"], "max_tokens": 100},
    },
)
answer.raise_for_status()
print(prompt + answer.json()["text"])
