"""How much alike two texts are: the cosine of the angle between their vectors."""

import os

import numpy as np
import requests

URL = os.environ.get("MYLLM_URL", "http://localhost:8000")


def embed(text):
    answer = requests.post(f"{URL}/api/embeddings", json={"model": "demo", "input": text})
    answer.raise_for_status()
    return np.array(answer.json()["embedding"])


def cosine(a, b):
    return np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))


first = embed("How do I start the server?")
second = embed("How can I run the server?")
print(f"{len(first)} dimensions, similarity {cosine(first, second):.3f}")
