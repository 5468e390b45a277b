"""Print a text while it is being written."""

import json
import os

import requests

URL = os.environ.get("MYLLM_URL", "http://localhost:8000")

with requests.post(
    f"{URL}/api/generate",
    json={"model": "demo", "prompt": "Write a poem about AI:", "stream": True},
    stream=True,
) as answer:
    answer.raise_for_status()
    for line in answer.iter_lines():
        # Events are lines that begin with "data: "; the others are comments and blank lines.
        if not line.startswith(b"data: "):
            continue
        event = json.loads(line[len(b"data: ") :])
        if "error" in event:
            raise SystemExit(event["error"])
        if event["done"]:
            print(f"\n({event['token_count']} tokens)")
        else:
            print(event["token"], end="", flush=True)
