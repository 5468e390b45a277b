"""Survive whatever can go wrong: no server, no such model, an answer that takes too long."""

import os
import sys

import requests

URL = os.environ.get("MYLLM_URL", "http://localhost:8000")


def safe_generate(prompt, model="demo", timeout_s=60):
    """The text, or None after the reason was printed."""
    try:
        answer = requests.post(
            f"{URL}/api/generate",
            json={"model": model, "prompt": prompt, "stream": False},
            timeout=timeout_s,
        )
        answer.raise_for_status()
        return answer.json()["text"]
    except requests.HTTPError as error:
        # The server says in one sentence what is wrong.
        print(f"refused: {error.response.json()['detail']}", file=sys.stderr)
    except requests.RequestException as error:
        print(f"no answer: {error}", file=sys.stderr)
    return None


print(safe_generate("The capital of France is"))
print(safe_generate("The capital of France is", model="no-such-model"))
